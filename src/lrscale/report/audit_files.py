"""The files of an audit: its text, its JSON, and the picture of its gradient."""

import io
import json

from rich.console import Console

from lrscale.audit.finding import Audit
from lrscale.report.audit import audit_json, show_audit


def audit_files(audit: Audit) -> dict[str, bytes]:
    """Returns the bytes of each file of an audit by its name: audit.txt, audit.json, audit.png and audit.svg.

    The pictures are left out where no gradient was measured.
    """
    from lrscale.report.figures.audit import gradient_against_examples
    from lrscale.report.figures.curves import figure_files

    text = io.StringIO()
    show_audit(audit, Console(file=text, width=80))
    document = json.dumps(audit_json(audit), indent=2, allow_nan=False) + "\n"
    files = {"audit.txt": text.getvalue().encode(), "audit.json": document.encode()}
    figure = gradient_against_examples(audit)
    pictures = {} if figure is None else figure_files(figure)
    return files | {f"audit.{form}": content for form, content in pictures.items()}
