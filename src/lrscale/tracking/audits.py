"""Records audits of training steps: each is a run of the experiment `audits`."""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrscale.audit.finding import Audit
from lrscale.errors import printable
from lrscale.provenance import source_tags
from lrscale.tracking.client import deliver
from lrscale.tracking.entries import entry, now_ms, rounded
from lrscale.tracking.schema import AUDIT_KINDS, AUDIT_SOURCE, AUDIT_VERDICT, AUDITS, COLOUR, KIND, NOTE
from lrscale.tracking.store import Store
from lrscale.tracking.trial_note import escape_markdown

VERDICT_TAGS = {True: "invariant", False: "not invariant", None: "not audited"}
"""The verdict's tag, by `Audit.ok`."""
VERDICT_PAINT = {True: "#009e73", False: "#d55e00", None: "#e69f00"}
"""The colour of a run in MLflow, by `Audit.ok`."""
AUDIT_METRICS = {
    "growth": "growth",
    "accumulation factor": "accumulation_factor",
    "c": "c",
    "p": "p",
    "clip threshold": "clip_threshold",
}
"""The metrics of a run, by the name of the number."""


def record_audit(uri: str, name: str, sha256: str, settings: Mapping[str, Any], audit: Audit, files: Mapping[str, bytes]) -> str:
    """Writes an audit as one run.

    Args:
      uri: the URI of the MLflow store; a database is created where there is none.
      name: the name of the step, `FILE.py:NAME`, which is the name of the run.
      sha256: the hash of the step's file.
      settings: what the audit was asked with, such as `accumulation`; what is None is left out.
      audit: the audit.
      files: the bytes of each file that is kept with the run, by its name.

    Returns:
      The id of the run.

    Raises:
      Refusal: the store cannot be used.
      Failure: it cannot be written.
    """
    store = Store(uri)
    tags = {
        KIND: "audit",
        AUDIT_VERDICT: VERDICT_TAGS[audit.ok],
        AUDIT_KINDS: ", ".join(sorted(audit.kinds)),
        AUDIT_SOURCE: sha256,
    }
    tags |= {NOTE: _note(audit), COLOUR: VERDICT_PAINT[audit.ok], **source_tags(), "mlflow.source.name": "lrscale audit"}
    groups = audit.numbers.get("groups") or [{}]
    known = {
        "optimizer": audit.numbers.get("optimizer"),
        **{key: groups[0].get(key) for key in ("lr", "momentum", "weight_decay")},
    }
    params = {key: _text(value) for key, value in {**settings, **known}.items() if value is not None}
    found = {AUDIT_METRICS[key]: value for key, value in audit.numbers.items() if key in AUDIT_METRICS}
    metrics = [(key, rounded(value), now_ms(), 0) for key, value in found.items() if math.isfinite(value)]
    metrics.append(("runs", float(audit.runs), now_ms(), 0))
    experiment = store.experiment(AUDITS)
    run_id = deliver(store.client, entry(experiment, printable(name)[:250], tags, None, params, metrics))
    with tempfile.TemporaryDirectory(prefix="lrscale-") as folder:
        for file, content in files.items():
            (Path(folder) / file).write_bytes(content)
        store.client.log_artifacts(run_id, folder)
    return run_id


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _note(audit: Audit) -> str:
    """Returns the description of the run: the verdict, and what was found."""
    found = [f"- **{escape_markdown(f.kind)}**: {escape_markdown(f.sentence)}" for f in audit.findings]
    return "\n".join([escape_markdown(audit.verdict), "", *found])
