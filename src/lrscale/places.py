"""Places on disk: whether a folder can be written, tried rather than guessed from its mode."""

import tempfile
from pathlib import Path


def can_write(folder: Path) -> bool:
    """Whether a file can be made in a folder; leaves none behind."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
