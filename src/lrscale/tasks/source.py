"""Code of a user that a config names, as in `mine.py:cnn`: found and read without running it, and run only when trusted."""

import ast
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NamedTuple

from lrscale.errors import Refusal
from lrscale.rules import BOOLEAN, TEXT, Rule, is_integer, is_number
from lrscale.tasks.held import is_held, no_file

TYPES: dict[str, Rule] = {
    "bool": BOOLEAN,
    "int": Rule("must be a whole number", is_integer),
    "float": Rule("must be a finite number", is_number),
    "str": TEXT,
}
"""The rules of parameters by their type. A parameter of another type takes any plain value."""
PLAIN = Rule("must be a plain value", lambda v: v is None or isinstance(v, bool | int | float | str | list | tuple))
ADVICE = "Write FILE.py:NAME, or package.module:NAME for code that is installed or in PYTHONPATH."


class Source(NamedTuple):
    """A function or a class of a user, as its file says it.

    `file` is its file, and `sha256` the hash of the file's bytes. `defaults` holds the default of each parameter that has
    one, and `rules` the rule of its type. `required` names the parameters without a default. `about` is the first line of
    the docstring.
    """

    file: Path
    sha256: str
    defaults: Mapping[str, Any]
    rules: Mapping[str, Rule]
    required: tuple[str, ...]
    about: str


def read_source(group: str, name: str) -> Source:
    """Reads the signature of a user's function or class. Runs no code of the user.

    Args:
      group: the group of the config that names it, `task` or `optimizer`.
      name: its name, `FILE.py:NAME` or `package.module:NAME`.

    Raises:
      Refusal: there is no such file or name in it, or its signature cannot be used.
    """
    if is_held(name):
        raise no_file(name)
    file = find_file(group, name)
    try:
        content = file.read_bytes()
        tree = ast.parse(content)
    except (OSError, SyntaxError, ValueError) as error:
        raise Refusal(f"`{group}` must name a Python file, got {name!r:.200}: {error!s:.200}. {ADVICE}") from None
    wanted = name.rpartition(":")[2]
    found = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == wanted
    ]
    if not found:
        known = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
        raise Refusal(
            f"`{group}` must name what {file.name} defines, got {wanted!r:.60}. It defines {', '.join(known) or 'nothing'}."
        )
    node = found[-1]
    defaults, rules, required = _signature(group, name, node)
    about = (ast.get_docstring(node) or "").partition("\n")[0]
    return Source(file, hashlib.sha256(content).hexdigest(), defaults, rules, required, about)


def find_file(group: str, name: str) -> Path:
    """Returns the file of a user's code. A package is searched for without importing it.

    Args:
      group: what the user calls it, for messages.
      name: its name, `FILE.py:NAME` or `package.module:NAME`.

    Raises:
      Refusal: there is no such file.
    """
    place = name.rpartition(":")[0]
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise Refusal(f"`{group}` must name a file that exists, got {name!r:.200}. {ADVICE}")
        return Path(place)
    folders: list[str] | None = None
    for k, _ in enumerate(parts := place.split("."), 1):
        spec = PathFinder.find_spec(".".join(parts[:k]), folders) if all(part.isidentifier() for part in parts) else None
        if spec is None or (k < len(parts) and spec.submodule_search_locations is None):
            raise Refusal(f"`{group}` must name a module that is installed, got {name!r:.200}. {ADVICE}")
        folders = list(spec.submodule_search_locations or ())
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise Refusal(f"`{group}` must name a module that is a Python file, got {name!r:.200}. {ADVICE}")
    return Path(spec.origin)


def _signature(
    group: str, name: str, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
) -> tuple[dict[str, Any], dict[str, Rule], tuple[str, ...]]:
    """Returns the defaults of a function's or a class's parameters, the rules of their types, and those without a default."""
    if isinstance(node, ast.ClassDef):
        inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if not inits:
            return {}, {}, ()
        arguments, skipped = inits[-1].args, 1
    else:
        arguments, skipped = node.args, 0
    plain = [*arguments.posonlyargs, *arguments.args]
    given = [*[None] * (len(plain) - len(arguments.defaults)), *arguments.defaults][skipped:]
    pairs = [*zip(plain[skipped:], given, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    defaults: dict[str, Any] = {}
    rules: dict[str, Rule] = {}
    for argument, default in pairs:
        if default is None:
            continue
        try:
            value = ast.literal_eval(default)
        except ValueError:
            value = ...
        if not PLAIN.holds(value):
            raise Refusal(
                f"`{group}.{argument.arg}` of {name:.100} must have a default that is written out, such as 16, 0.1, 'relu' or "
                f"None, got {ast.unparse(default)!r:.60}. Compute other values in the function."
            )
        defaults[argument.arg] = list(value) if isinstance(value, tuple) else value
        rules[argument.arg] = _rule(argument.annotation, value)
    return defaults, rules, tuple(argument.arg for argument, default in pairs if default is None)


def _rule(annotation: ast.expr | None, default: Any) -> Rule:
    """Returns the rule of a parameter from its annotation, or from the type of its default."""
    kind = ast.unparse(annotation) if annotation is not None else type(default).__name__
    names = [part.strip() for part in kind.split("|")]
    rules = [TYPES[name] for name in names if name in TYPES]
    if len(rules) + ("None" in names) < len(names) or not rules:
        return PLAIN
    if len(rules) == 1 and "None" not in names:
        return rules[0]
    text = " or ".join([*(rule.text.removeprefix("must be ") for rule in rules), *(["null"] if "None" in names else [])])
    return Rule(f"must be {text}", lambda v: (v is None and "None" in names) or any(rule.holds(v) for rule in rules))


_TRUSTED: dict[str, Path] = {}
"""The files that may be run in this process, by their hash."""


def trust_nothing() -> None:
    """Forgets which files may be run: each command trusts anew what its user names."""
    _TRUSTED.clear()


def trust(file: Path) -> str:
    """Allows a file to be run in this process, as it is now. Returns its hash.

    Raises:
      Refusal: there is no such file.
    """
    try:
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise Refusal(f"`--trust` must name a file, got {str(file)!r:.200}: {error.strerror}.") from None
    _TRUSTED[sha256] = file
    return sha256


def load(group: str, name: str, sha256: str) -> Any:
    """Runs the file of a user's code and returns the function or class that a name means.

    Args:
      group: the group of the config that names it.
      name: its name.
      sha256: the hash that the file must have.

    Raises:
      Refusal: the file is not trusted, has changed, or fails when it is run.
    """
    module = load_module(group, name, sha256)
    try:
        return getattr(module, name.rpartition(":")[2])
    except AttributeError as error:
        raise Refusal(f"`{group}` {name:.200} must run, got {told(error, _TRUSTED[sha256])}.") from error


def load_module(group: str, name: str, sha256: str) -> Any:
    """Runs the file of a user's code, once, and returns it as a module. Takes and raises what `load` does."""
    if sha256 not in _TRUSTED:
        raise Refusal(
            f"`{group}` {name:.200} is code, which a sweep file or a record cannot run. "
            f"To run it, type {group}={name:.200} yourself, or lrscale reproduce with --trust FILE."
        )
    file = _TRUSTED[sha256]
    if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
        raise Refusal(f"`{group}` {file} must stay as it is while it is used, and has changed. Run the command again.")
    place = name.rpartition(":")[0]
    try:
        return _run(file, sha256) if place.endswith(".py") else importlib.import_module(place)
    except Refusal:
        raise
    except (Exception, SystemExit) as error:
        is_relative = isinstance(error, ImportError) and "relative import" in str(error)
        advice = " Name it as a part of its package, with PYTHONPATH=FOLDER and package.module:NAME." if is_relative else ""
        raise Refusal(f"`{group}` {name:.200} must run, got {told(error, file)}.{advice}") from error


def told(error: BaseException, file: Path) -> str:
    """Returns an error of a user's code in one line: its type, its first line, and the last line of the file on its way."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == file.resolve()]
    place = f" ({file.name}, line {lines[-1].lineno})" if lines else ""
    first = str(error).partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}{f': {first:.300}' if first else ''}{place}"


def _module_name(sha256: str) -> str:
    """Returns the name under which a user's file stands among the loaded modules."""
    return f"lrscale_user_{sha256[:16]}"


def _run(file: Path, sha256: str) -> Any:
    """Returns a file as a module; runs it once. Its folder is searched for the modules that it imports, as for a script."""
    if (loaded := sys.modules.get(_module_name(sha256))) is not None:
        return loaded
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(_module_name(sha256), file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
