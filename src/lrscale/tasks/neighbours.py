"""The files that a user's file imports from its own folder, found without running any."""

import ast
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path


def hash_of(file: Path) -> str:
    """Returns the sha256 of a file's bytes; where it imports others of its folder, of theirs too.

    Raises:
      OSError: the file cannot be read.
    """
    file = file.resolve()
    digest = hashlib.sha256(file.read_bytes())
    for other in neighbours(file):
        digest.update(f"\n{other.relative_to(file.parent).as_posix()} {hashlib.sha256(other.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


def neighbours(file: Path) -> list[Path]:
    """Returns the files below a file's folder that it imports by a statement, or that those import, without itself."""
    file = file.resolve()
    found, waiting = {file}, [file]
    while waiting:
        here = waiting.pop()
        for level, parts in _imports(here.read_bytes()):
            if level == 0 and parts[0] == "lrscale":
                continue
            base = file.parent if level == 0 else here.parents[min(level, len(here.parents)) - 1]
            for k in range(len(parts) + 1):
                place = base.joinpath(*parts[:k])
                files = [place / "__init__.py", *([place.with_name(f"{place.name}.py")] if k > 0 else [])]
                new = [f for f in files if f not in found and f.is_relative_to(file.parent) and f.is_file()]
                found.update(new)
                waiting += new
    return sorted(found - {file})


@lru_cache(maxsize=4096)
def _imports(content: bytes) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Returns the modules that a file may import: how many folders up, and the parts of the name. Empty where it is no Python."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return ()
    return tuple(sorted({name for node in ast.walk(tree) for name in _names(node)}))


def _names(node: ast.AST) -> Iterator[tuple[int, tuple[str, ...]]]:
    if isinstance(node, ast.Import):
        yield from ((0, tuple(alias.name.split("."))) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = tuple(node.module.split(".")) if node.module else ()
        yield from ((node.level, (*module, alias.name)) for alias in node.names if alias.name != "*")
        if module:
            yield node.level, module
