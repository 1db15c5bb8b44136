"""The two errors that users see: a Refusal comes before anything is written, a Failure comes later."""

from collections.abc import Mapping
from typing import Any


class Refusal(ValueError):
    """A value cannot be used. The text is one line: field, rule, value, way out."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(" ".join(text.split())))


class Failure(RuntimeError):
    """A command began and could not finish. The text says why, and how to continue."""

    def __init__(self, text: str) -> None:
        super().__init__("\n".join(map(printable, text.splitlines())))


def said(error: BaseException) -> str:
    """Returns the type of an error of a user's code or of torch, and the start of the first line of what it says.

    Example:
      >>> said(KeyError("wd"))
      "KeyError: 'wd'"
    """
    first = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first:.200}".rstrip(".: ")


def printable(text: str) -> str:
    """Returns a text with `?` in place of each character that is not printable.

    A terminal would obey control characters.

    Example:
      >>> printable("b8 \x1b[2J\u202e")
      'b8 ?[2J?'
    """
    return "".join(c if c.isprintable() else "?" for c in text)


def printable_all(value: Any) -> Any:
    """Returns a copy of nested plain values in which each text and each key is `printable`. Tuples become lists."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): printable_all(inner) for key, inner in value.items()}
    return [printable_all(inner) for inner in value] if isinstance(value, list | tuple) else value
