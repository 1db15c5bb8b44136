"""The two errors that users see: a Refusal comes before anything is written, a Failure comes later."""

import os
import re
from collections.abc import Mapping
from typing import Any

SECRETS = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "PGPASSWORD",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
"""The environment variables whose values are never shown."""
SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|TOKEN|SECRET|SECRET_KEY|ACCESS_KEY|API_KEY)$", re.IGNORECASE)
"""The end of the name of any other environment variable that holds a secret."""
MASK = "***"
"""What stands in a text in place of a password."""
_SECRET_NAMES = (
    "(?:password|passwd|pwd|passphrase|secret|credentials?|(?:api|access|secret|private)_?key"
    "|(?:access|api|auth|bearer|hf|wandb)_?token)"
)
_PASSWORDS = (
    # of a URL; up to the last @, because a password may hold one. In overrides Hydra writes a colon as \:
    (re.compile(r"(://[^\s/:@\\]*\\?:)\S*@"), rf"\1{MASK}@"),
    (re.compile(r"(https?\\?://)[^\s/:@\\]+@"), rf"\1{MASK}@"),  # a token in place of user and password
    (re.compile(rf"({_SECRET_NAMES}(?:=|%3D))[^\s&'\"]+", re.IGNORECASE), rf"\1{MASK}"),  # %3D: an = within a part of a URL
    (re.compile(r"([?&](?:sig|x-amz-signature)=)[^\s&'\"]+", re.IGNORECASE), rf"\1{MASK}"),  # a signed URL
)
_SECRET_KEY = re.compile(rf"{_SECRET_NAMES}$", re.IGNORECASE)


class Refusal(ValueError):
    """A value cannot be used. The text is one line: field, rule, value, way out."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(masked(" ".join(text.split()))))


class Failure(RuntimeError):
    """A command began and could not finish. The text says why, and how to continue."""

    def __init__(self, text: str) -> None:
        super().__init__("\n".join(map(printable, masked(text).splitlines())))


def masked(text: str) -> str:
    """Returns a text with `***` in place of each password: those in URLs, and the values of the `SECRETS`.

    A value shorter than 4 characters is left, because it could be a part of any word. Of other variables whose names end as a
    secret's does, those of 8 characters and more are masked.

    Example:
      >>> masked("postgresql://me:secret@host/db did not answer")
      'postgresql://me:***@host/db did not answer'
    """
    text = masked_url(text)
    for name, value in os.environ.items():
        if len(value) >= (4 if name in SECRETS else 8) and (name in SECRETS or SECRET_NAME.search(name)):
            text = text.replace(value, MASK)
    return text


def masked_url(text: str) -> str:
    """Returns a text with `***` in place of each password in a URL: for records, which no environment variable may change."""
    for pattern, shown in _PASSWORDS:
        text = pattern.sub(shown, text)
    return text


def masked_secrets(value: Any, key: str = "") -> Any:
    """Returns a copy of nested plain values with `***` in place of passwords: in URLs, and texts under keys that name one.

    Interpolations stay as they are, because they hold no password.

    Args:
      value: plain values.
      key: the key under which the value stands, with or without dots.

    Example:
      >>> masked_secrets({"db": {"url": "postgresql://me:x@host/db", "password": "y"}, "pad_token": "z"})
      {'db': {'url': 'postgresql://me:***@host/db', 'password': '***'}, 'pad_token': 'z'}
    """
    if isinstance(value, Mapping):
        return {name: masked_secrets(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [masked_secrets(inner, key) for inner in value]
    if isinstance(value, str) and value and _SECRET_KEY.search(key) and not value.startswith("${"):
        return MASK
    return masked_url(value) if isinstance(value, str) else value


def without_login(url: str) -> str:
    """Returns a URL without user and password, to be opened in a browser.

    Example:
      >>> without_login("https://me:secret@host:5000/")
      'https://host:5000/'
    """
    scheme, mark, rest = url.partition("://")
    return scheme + mark + rest.rpartition("@")[2]


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
