"""The files that a user's file imports from its folder: they are part of its hash."""

import hashlib
from pathlib import Path

from lrscale.tasks.neighbours import hash_of, neighbours


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    _ = file.write_text(text)
    return file


def test_imports_from_the_folder_are_followed(folder: Path) -> None:
    text = "import lrscale, one\ndef f():\n    from pack.deep import part, NAME\n    from pack import *\n    from .. import y\n"
    mine = write(folder / "mine.py", text)
    expected = [
        write(folder / "one.py", "import mine\nfrom two import thing\n"),
        write(folder / "two.py", "no Python:"),
        write(folder / "pack/__init__.py", "from . import beside\n"),
        write(folder / "pack/beside.py", "from .. import too_far\n"),
        write(folder / "pack/deep/part.py", "from ..second import x\n"),
        write(folder / "pack/second.py", ""),
    ]
    for other in ("unused.py", "lrscale.py", "pack/unused.py"):
        _ = write(folder / other, "")
    assert neighbours(mine) == neighbours(Path("mine.py")) == sorted(file.resolve() for file in expected)
    before = hash_of(mine)
    _ = write(folder / "unused.py", "changed = 1\n")
    assert hash_of(mine) == before
    _ = write(folder / "pack/second.py", "x = 1\n")
    assert hash_of(mine) != before


def test_a_file_alone_has_the_hash_of_its_bytes(folder: Path) -> None:
    mine = write(folder / "mine.py", "import torch\n")
    assert hash_of(mine) == hashlib.sha256(mine.read_bytes()).hexdigest()
