"""Rules: conditions on values, each with the words that state it, and the checks that refuse a value."""

import math
import reprlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any, NamedTuple

from lrscale.errors import MASK, Refusal, masked


class Rule(NamedTuple):
    """A condition on a value. `text` states it in words, as in `must be > 0`; `holds` tests a value; `names` can be chosen."""

    text: str
    holds: Callable[[Any], bool]
    names: tuple[str, ...] = ()


def is_number(value: object) -> bool:
    """Returns whether a value is a finite number. A boolean is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_integer(value: object) -> bool:
    """Returns whether a value is a whole number. A boolean is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def integer(low: int, high: int = 10**9) -> Rule:
    """Returns the rule of a whole number from `low` to `high`, both included."""
    return Rule(f"must be a whole number from {low} to {high}", lambda v: is_integer(v) and low <= v <= high)


def one_of(*names: str) -> Rule:
    """Returns the rule of a text that is one of some names."""
    return Rule(f"must be one of {', '.join(names)}", lambda v: isinstance(v, str) and v in names, names)


def _is_betas(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(is_number(b) and 0 <= b < 1 for b in value)


POSITIVE = Rule("must be finite and > 0", lambda v: is_number(v) and v > 0)
NOT_NEGATIVE = Rule("must be finite and >= 0", lambda v: is_number(v) and v >= 0)
FRACTION = Rule("must be >= 0 and < 1", lambda v: is_number(v) and 0 <= v < 1)
PROPORTION = Rule("must be >= 0 and <= 1", lambda v: is_number(v) and 0 <= v <= 1)
BOOLEAN = Rule("must be true or false", lambda v: isinstance(v, bool))
TEXT = Rule(
    "must be a text of 1 to 1000 printable characters", lambda v: isinstance(v, str) and 0 < len(v) <= 1000 and v.isprintable()
)
BETAS = Rule("must be two numbers, each >= 0 and < 1", _is_betas)


def check(field: str, rule: Rule, value: object, way_out: str = "") -> None:
    """Raises Refusal unless a rule holds for a value.

    Args:
      field: name of the value, as the user writes it.
      rule: the rule.
      value: the value.
      way_out: a sentence that ends the message: what the user can do.
    """
    if not rule.holds(value):
        near = get_close_matches(value.lower(), rule.names, 1) if isinstance(value, str) and len(value) < 100 else []
        way_out = f"Did you mean {field}={near[0]}?" if near and not way_out else way_out
        raise Refusal(f"`{field}` {rule.text}, got {shown(value)}. {way_out}")


def shown(value: object) -> str:
    """Returns a value as a refusal quotes it: short, and without passwords."""
    return reprlib.repr(masked(value) if isinstance(value, str) else value)


DATABASE_WAYS = {
    "password": "Correct user and password in its URL; for PostgreSQL, PGPASSWORD and ~/.pgpass work too.",
    "does not exist": "Make it first, such as with PostgreSQL's createdb.",
    "onnection refused": "Start the database.",
    "locate revision": "It holds the tables of another program, or of a newer version: take a database of its own.",
}
"""The way out of an error of a database server, by a part of its text."""


def database_url(field: str, url: str) -> str:
    """Returns the URL with which SQLAlchemy reaches a database: for PostgreSQL that of the driver psycopg 3.

    A password that a record has masked is left out: the driver then takes PGPASSWORD or ~/.pgpass.

    Args:
      field: name of the value, as the user writes it.
      url: the URL of a database or of a server.

    Raises:
      Refusal: the URL has a space, or the driver is not installed.
    """
    if any(letter.isspace() for letter in url):  # its password could not be told from the text around it
        raise Refusal(f"`{field}` must be a URL without spaces, got one of {len(url)} characters. Write each space as %20.")
    scheme, mark, rest = url.partition("://")
    if scheme in ("postgres", "postgresql"):
        scheme = "postgresql+psycopg"
    if scheme == "postgresql+psycopg":
        if find_spec("psycopg") is None:
            raise Refusal(
                f"`{field}` with {scheme}:// needs the driver psycopg, which is not installed, got {url}. "
                "Run pip install 'lrscale[postgres]'."
            )
        rest = rest.replace(f":{MASK}@", "@", 1)
    return scheme + mark + rest


def check_keys(field: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raises Refusal unless `values` has exactly the keys of `known`.

    Args:
      field: name of the mapping, as the user writes it.
      values: the mapping.
      known: a mapping with the expected keys; its values are not read.
    """
    for key in values:
        if key not in known:
            raise Refusal(f"`{field}.{key}` is not known, got {shown(values[key])}. Known: {', '.join(known)}.")
    for key in known:
        if key not in values:
            raise Refusal(f"`{field}.{key}` is missing. Known: {', '.join(known)}.")
