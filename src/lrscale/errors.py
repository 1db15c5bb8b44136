"""The two errors that users see: a Refusal before anything was written, and a Failure on the way."""

from collections.abc import Mapping
from typing import Any


class Refusal(ValueError):
    """A value that cannot be used. Its text is one line: field, rule, value, way out."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(" ".join(text.split())))


class Failure(RuntimeError):
    """A command that began and could not be carried out to its end; its text says why and how to go on."""

    def __init__(self, text: str) -> None:
        super().__init__("\n".join(map(printable, text.splitlines())))


def printable(text: str) -> str:
    """Returns a text without control characters, which a terminal would act on.

    Example:
      >>> printable("b8 \x1b[2J\u202e")
      'b8 ?[2J?'
    """
    return "".join(c if c.isprintable() else "?" for c in text)


def printable_all(value: Any) -> Any:
    """Returns nested plain values with every text and key made `printable`."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): printable_all(inner) for key, inner in value.items()}
    return [printable_all(inner) for inner in value] if isinstance(value, list | tuple) else value
