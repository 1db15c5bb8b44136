"""A user's code that a config names: it is read without being run, and run only where it is trusted."""

import sys
from pathlib import Path

import pytest

from lrscale.errors import Refusal
from lrscale.tasks import source
from lrscale.tasks.source import load, read_source, trust

RUNS = "raise SystemExit('this file was run')\n"


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    file = folder / name
    _ = file.write_text(text)
    return file


def test_a_signature_is_read_without_running_the_file(folder: Path) -> None:
    _ = write(
        folder, RUNS + 'def net(width: int = 16, rate=0.25, act: str = "relu", deep: bool = False, size: int | None = None):\n'
        '    """A small net.\n\n    More."""\n',
    )  # fmt: skip
    found = read_source("task", "mine.py:net")
    assert found.defaults == {"width": 16, "rate": 0.25, "act": "relu", "deep": False, "size": None}
    assert found.about == "A small net." and found.required == () and len(found.sha256) == 64
    allowed = {"width": [3, -1], "rate": [0.5, 2], "act": ["gelu"], "deep": [True], "size": [None, 4]}
    refused = {"width": [1.5, True, "3"], "rate": [float("nan"), "x"], "act": [3], "deep": [1], "size": [1.5]}
    assert all(found.rules[key].holds(value) for key, values in allowed.items() for value in values)
    assert not any(found.rules[key].holds(value) for key, values in refused.items() for value in values)


@pytest.mark.parametrize(
    ("parameter", "allowed", "refused"),
    [
        ("x: int = None", [None, 3], [0.5, "3"]),
        ("x=0", [0, 0.5], ["a"]),
        ("x: 'int' = 3", [4], [0.5]),
        ("x: Optional[int] = 3", [None, 4], [0.5]),
        ("x: typing.Union[int, str] = 3", [4, "a"], [None, 0.5]),
        ("x: 'int | None' = 3", [None, 4], ["a"]),
        ("x: Anything = 3", [None, 4, "a", [1]], [{}]),
    ],
)
def test_the_rule_of_a_parameter_is_that_of_its_type(
    parameter: str, allowed: list[object], refused: list[object], folder: Path
) -> None:
    _ = write(folder, f"def net({parameter}): ...\n")
    rule = read_source("task", "mine.py:net").rules["x"]
    assert all(map(rule.holds, allowed)) and not any(map(rule.holds, refused))


def test_an_init_is_inherited_in_a_file(folder: Path) -> None:
    text = "class A:\n    def __init__(self, params, lr=0.1): ...\nclass B(A): ...\nclass C(Other, B): ...\n"
    _ = write(folder, text)
    assert read_source("optimizer", "mine.py:C").defaults == {"lr": 0.1}
    assert read_source("optimizer", "mine.py:C").required == ("params",)


def test_each_file_has_the_neighbours_of_its_own_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "venv", raising=False)  # another test may have loaded Python's own
    for place in ("a", "b"):
        (folder / place / "pack").mkdir(parents=True)
        _ = write(folder / place, f"HERE = '{place}'\n", "neighbour.py")
        _ = write(folder / place, f"HERE = '{place}'\n", "later.py")
        _ = write(folder / place, f"HERE = '{place}'\n", "pack/__init__.py")
        _ = write(folder / place, f"HERE = '{place}'\n", "pack/part.py")
        _ = write(folder / place, f"HERE = '{place}'\n", "venv.py")  # named like a module of Python itself
        _ = write(
            folder / place,
            "import neighbour, pack.part, venv\ndef net():\n    import later\n"
            "    return [m.HERE for m in (neighbour, pack, pack.part, venv, later)]\n",
        )
    before = set(sys.modules)
    hashes = [trust(folder / place / "mine.py") for place in ("a", "b")]
    for place, sha256 in zip(("a", "b"), hashes, strict=True):
        assert load("task", f"{place}/mine.py:net", sha256)() == [place] * 5
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_class_has_the_parameters_of_its_init(folder: Path) -> None:
    _ = write(folder, "class Lion:\n    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), *, weight_decay=0.0): ...\n")
    found = read_source("optimizer", "mine.py:Lion")
    assert found.defaults == {"lr": 1e-4, "betas": [0.9, 0.99], "weight_decay": 0.0} and found.required == ("params",)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("none.py:net", "", "must name a file that exists"),
        ("mine.py:other", "def net(): ...\n", "must name what mine.py defines, got 'other'. It defines net"),
        ("mine.py:net", "def net(:\n", "must name a Python file"),
        ("mine.py:net", "def net(width=make()): ...\n", "must have a default that is written out"),
        ("no.such.module:net", "", "must name a module that is installed"),
        ("..evil:net", "", "must name a module that is installed"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(name: str, text: str, says: str, folder: Path) -> None:
    _ = write(folder, text)
    with pytest.raises(Refusal, match=says) as error:
        _ = read_source("task", name)
    assert "\n" not in str(error.value)


def test_installed_code_is_found_without_importing_its_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder / "mypackage"
    package.mkdir()
    _ = write(package, RUNS, "__init__.py")
    _ = write(package, RUNS + "def net(width: int = 3): ...\n", "nets.py")
    monkeypatch.syspath_prepend(str(folder))
    assert read_source("task", "mypackage.nets:net").defaults == {"width": 3}


def test_a_file_is_run_only_where_it_is_trusted_and_unchanged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_TRUSTED", {})
    file = write(folder, "def net():\n    return 3\n")
    sha256 = read_source("task", "mine.py:net").sha256
    with pytest.raises(Refusal, match="is code, which a sweep file or a record cannot run"):
        _ = load("task", "mine.py:net", sha256)
    assert trust(file) == sha256 and load("task", "mine.py:net", sha256)() == 3
    _ = write(folder, "def net():\n    return 4\n")
    with pytest.raises(Refusal, match="must stay as it is while it is used"):
        _ = load("task", "mine.py:net", sha256)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("exit('no card')", "SystemExit: no card"),
    ],
)
def test_a_file_that_fails_is_refused_with_its_own_words(text: str, says: str, folder: Path) -> None:
    file = write(folder, f"{text}\ndef net(): ...\n")
    with pytest.raises(Refusal, match=f"must run, got {says}"):
        _ = load("task", "mine.py:net", trust(file))
