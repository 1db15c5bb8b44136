"""Files and folders: what can be written, writing in one move, safe names, and where conf/ and sweeps/ are."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lrscale.errors import printable


def can_write(folder: Path) -> bool:
    """Whether a file can be made in a folder, tried rather than guessed from its mode; leaves none behind."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        return error.errno == errno.ENOSPC


def write_whole(file: Path, content: str | bytes) -> None:
    """Writes a file in one move: a kill leaves the old one or the new, and a link in its place is replaced, not followed."""
    made = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        made.write_bytes(content if isinstance(content, bytes) else content.encode())
        made.replace(file)
    finally:
        made.unlink(missing_ok=True)


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0])[:300].rstrip(".")


def safe_name(name: str) -> str:
    """A name that is one file or folder below another, whatever a study is called; other names give other ones.

    Example:
      >>> safe_name("quickstart"), safe_name("../quick start")
      ('quickstart', '_quick_start-5c446f')
    """
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name).lstrip(".")[:80]
    return kept if kept and kept == name else f"{kept}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:6]}"


def home() -> Path:
    """The folder that holds conf/ and sweeps/: the package where it is installed, the repository where it is edited."""
    package = Path(__file__).parent
    return package if (package / "conf").is_dir() else package.parents[1]


def as_yaml(config: Mapping[str, object]) -> str:
    """A config of plain values, two levels deep, as YAML."""
    lines = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            lines += [f"{key}:", *(f"  {name}: {json.dumps(inner)}" for name, inner in value.items())]
        else:
            lines.append(f"{key}: {json.dumps(value)}")
    return "\n".join(lines)
