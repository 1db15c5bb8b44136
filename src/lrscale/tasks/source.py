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

from lrscale.errors import Refusal, said
from lrscale.files import from_start
from lrscale.rules import BOOLEAN, TEXT, Rule, is_integer, is_number
from lrscale.tasks.held import is_held, no_file
from lrscale.tasks.neighbours import hash_of

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

    `file` is its file, and `sha256` the hash of the file and of the neighbours that it
    imports, see `hash_of`. `defaults` holds the default of each parameter that has
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
        tree, sha256 = ast.parse(file.read_bytes()), hash_of(file)
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
    classes = {part.name: part for part in tree.body if isinstance(part, ast.ClassDef)}
    defaults, rules, required = _signature(group, name, _init(node, classes) if isinstance(node, ast.ClassDef) else node)
    about = (ast.get_docstring(node) or "").partition("\n")[0]
    return Source(file, sha256, defaults, rules, required, about)


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
        if not from_start(place).is_file():
            raise Refusal(f"`{group}` must name a file that exists, got {name!r:.200}. {ADVICE}")
        return from_start(place)
    folders: list[str] | None = None
    for k, _ in enumerate(parts := place.split("."), 1):
        spec = PathFinder.find_spec(".".join(parts[:k]), folders) if all(part.isidentifier() for part in parts) else None
        if spec is None or (k < len(parts) and spec.submodule_search_locations is None):
            raise Refusal(f"`{group}` must name a module that is installed, got {name!r:.200}. {ADVICE}")
        folders = list(spec.submodule_search_locations or ())
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise Refusal(f"`{group}` must name a module that is a Python file, got {name!r:.200}. {ADVICE}")
    return Path(spec.origin)


def _init(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> ast.FunctionDef | None:
    """Returns the `__init__` of a class, its own or that of a class of the same file that it is made from; None elsewhere."""
    for part in reversed(node.body):
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return part
    others = {name: other for name, other in classes.items() if other is not node}
    bases = [others[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in others]
    return next((init for base in bases if (init := _init(base, others)) is not None), None)


def _signature(
    group: str, name: str, node: ast.FunctionDef | ast.AsyncFunctionDef | None
) -> tuple[dict[str, Any], dict[str, Rule], tuple[str, ...]]:
    """Returns the defaults of a function's parameters, the rules of their types, and those without a default.

    The first parameter of an `__init__` is left out. Where there is no function, there are no parameters.
    """
    if node is None:
        return {}, {}, ()
    arguments, skipped = node.args, int(node.name == "__init__")
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
    """Returns the rule of a parameter from its annotation, or from the type of its default; None is allowed as a default."""
    if annotation is None:
        names = ["float" if default == 0 and is_integer(default) else type(default).__name__]  # as in dropout=0
    else:
        names = _kinds(annotation)
        if default is None and "None" not in names:
            names = [*names, "None"]
    rules = [TYPES[name] for name in names if name in TYPES]
    if len(rules) + ("None" in names) < len(names) or not rules:
        return PLAIN
    if len(rules) == 1 and "None" not in names:
        return rules[0]
    text = " or ".join([*(rule.text.removeprefix("must be ") for rule in rules), *(["null"] if "None" in names else [])])
    return Rule(f"must be {text}", lambda v: (v is None and "None" in names) or any(rule.holds(v) for rule in rules))


def _kinds(annotation: ast.expr) -> list[str]:
    """Returns the types of an annotation by name: several for `int | None`, `Optional[int]` and `Union[int, None]`."""
    match annotation:
        case ast.Constant(value=str(text)):
            try:
                return _kinds(ast.parse(text, mode="eval").body)
            except SyntaxError:
                return [text]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return [*_kinds(left), *_kinds(right)]
        case ast.Subscript(value=ast.Name(id="Optional") | ast.Attribute(attr="Optional"), slice=part):
            return [*_kinds(part), "None"]
        case ast.Subscript(value=ast.Name(id="Union") | ast.Attribute(attr="Union"), slice=ast.Tuple(elts=parts)):
            return [kind for part in parts for kind in _kinds(part)]
    return [ast.unparse(annotation)]


_TRUSTED: dict[str, list[Path]] = {}
"""The files that may be run in this process, by their hash. Equal files can have other neighbours."""


def trust_nothing() -> None:
    """Forgets which files may be run: each command trusts anew what its user names."""
    _TRUSTED.clear()


def trust(file: Path) -> str:
    """Allows a file to be run in this process, as it is now. Returns its hash.

    Raises:
      Refusal: there is no such file.
    """
    try:
        sha256 = hash_of(file)
    except OSError as error:
        raise Refusal(f"`--trust` must name a file, got {str(file)!r:.200}: {error.strerror}.") from None
    _TRUSTED.setdefault(sha256, []).append(file.absolute())
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
        raise Refusal(f"`{group}` {name:.200} must run, got {told(error, _trusted(name, sha256))}.") from error


def load_module(group: str, name: str, sha256: str) -> Any:
    """Runs the file of a user's code, once, and returns it as a module. Takes and raises what `load` does."""
    if sha256 not in _TRUSTED:
        raise Refusal(
            f"`{group}` {name:.200} is code, which a sweep file or a record cannot run. "
            f"To run it, type {group}={name:.200} yourself, or lrscale reproduce with --trust FILE."
        )
    file = _trusted(name, sha256)
    if hash_of(file) != sha256:
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


def _trusted(name: str, sha256: str) -> Path:
    """Returns the file with this hash that a name means."""
    place, files = name.rpartition(":")[0], _TRUSTED[sha256]
    return next((file for file in files if file.resolve() == from_start(place).resolve()), files[-1])


def told(error: BaseException, file: Path) -> str:
    """Returns an error of a user's code in one line: its type, its first line, and the last line of the file on its way."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == file.resolve()]
    place = f" ({file.name}, line {lines[-1].lineno})" if lines else ""
    return f"{said(error)}{place}"


def _run(file: Path, sha256: str) -> Any:
    """Returns a file as a module; runs it once. Its folder is searched first for the modules that it imports, as for a script."""
    folder = str(file.resolve().parent)
    name = f"lrscale_user_{sha256[:16]}_{hashlib.sha256(folder.encode()).hexdigest()[:8]}"
    if (loaded := sys.modules.get(name)) is not None:
        return loaded
    _forget_neighbours_elsewhere(folder)
    if folder in _FOLDERS or folder not in sys.path:
        _FOLDERS[:] = [folder, *(known for known in _FOLDERS if known != folder)]
    sys.path[:] = [place for place in sys.path if place not in _FOLDERS] + _FOLDERS
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    finally:
        sys.path.remove(folder)
    return module


_FOLDERS: list[str] = []
"""The folders of the files that were run, the last one first. They are the last ones in which Python searches for modules."""


def _forget_neighbours_elsewhere(folder: str) -> None:
    """Forgets modules in the folders of other files that have the name of one in this folder, as two `utils.py` have."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." in name or not isinstance(file, str):
            continue
        place = str(Path(file).parents[int(hasattr(module, "__path__"))])
        if place != folder and place in _FOLDERS and PathFinder.find_spec(name, [folder]) is not None:
            for part in [part for part in sys.modules if part.partition(".")[0] == name]:
                del sys.modules[part]
