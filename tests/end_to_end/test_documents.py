"""The documents: their commands run, their links lead somewhere, and what they must name is named."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

import lrscale
from lrscale.commands.cli import find_commands, make_parser
from tests.configs import ROOT
from tests.program import here

DOCUMENTS = (
    "README.md",
    "sweeps/README.md",
    "tests/README.md",
    "tests/benchmarks/README.md",
    "tests/cases/README.md",
    "src/lrscale/README.md",
    "src/lrscale/audit/README.md",
    "src/lrscale/hydra_app/README.md",
    "src/lrscale/run/README.md",
    "src/lrscale/tracking/README.md",
)
TEXTS = {name: (ROOT / name).read_text() for name in DOCUMENTS}
MOST_WORDS = 900
"""README is read at one sitting; what is longer has a document of its own."""
LASTING = ("ui",)
"""Commands that go on until they are stopped."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BENCHMARK = re.compile(r"python -m (tests\.benchmarks\.\w+)")


def blocks(text: str) -> list[tuple[str, str]]:
    """The code blocks of a document: language and content."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)


def prose(text: str) -> str:
    """A document without code and without comments."""
    return re.sub(r"^```.*?^```$|`[^`\n]+`|<!--.*?-->", "", text, flags=re.S | re.M)


def commands(text: str) -> list[str]:
    """The commands in the bash blocks of a document."""
    lines = [line for language, content in blocks(text) if language == "bash" for line in content.strip().splitlines()]
    return [command.strip() for line in lines for command in line.split("&&")]


ALL = list(dict.fromkeys(command for text in TEXTS.values() for command in commands(text)))
PROGRAM = [command for command in ALL if command.startswith("lrscale ")]


def takes_long(command: str) -> bool:
    """Whether a command runs a study other than the quickstart, or does not end."""
    words = shlex.split(command)[1:]
    studies = [word for word in words if word.startswith("sweeps=")] + (words[1:2] if words[0] == "reproduce" else [])
    return words[0] in LASTING or any(study.removeprefix("sweeps=") != "quickstart" for study in studies)


def slugs(text: str) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)}


def known_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    here(folder, "run", "-m", "sweeps=quickstart")
    return folder


@pytest.mark.parametrize("command", [command for command in PROGRAM if not takes_long(command)])
def test_each_command_runs(command: str, quickstart: Path) -> None:
    assert here(quickstart, *shlex.split(command)[1:])


@pytest.mark.parametrize("command", PROGRAM)
def test_each_command_is_known_and_names_what_is_there(command: str) -> None:
    words = shlex.split(command)[1:]
    if words[0] == "run":
        sweeps = [word.removeprefix("sweeps=") for word in words if word.startswith("sweeps=")]
        assert all((ROOT / "sweeps" / f"{sweep}.yaml").is_file() for sweep in sweeps)
    else:
        options = make_parser().parse_args(words)
        assert words[0] != "reproduce" or (ROOT / "sweeps" / "results" / options.study).is_dir()


@pytest.mark.parametrize("command", [command for command in ALL if command not in PROGRAM])
def test_each_other_command_names_what_is_there(command: str) -> None:
    words = shlex.split(command)
    if words[:3] == ["pip", "install", "-e"]:
        extras = re.fullmatch(r"\.(?:\[([\w,]+)\])?", words[3])
        assert extras is not None and set((extras[1] or "test").split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    elif words[:2] == ["python", "-m"] and words[2] != "pytest":
        assert known_module(words[2])
    else:
        assert words[:3] == ["python", "-m", "pytest"] or words[0] in ("ruff", "mypy")
        paths = [word for word in words[1:] if "/" in word or word in ("src", "tests")]
        assert all((ROOT / path).exists() for path in paths)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_quoted_below_a_command_is_its_output(name: str, quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line. The numbers of a study may differ elsewhere; tests/published compares them with its record."""
    monkeypatch.setenv("COLUMNS", "80")
    command = ""
    for language, content in blocks(TEXTS[name]):
        if language == "bash":
            command = commands(f"```bash\n{content}```")[-1]
        elif not language and command.startswith("lrscale ") and not takes_long(command):
            digits = r"-?\d+(\.\d+)?" if "sweeps=" in command else r"(?!)"
            output = re.sub(digits, "#", here(quickstart, *shlex.split(command)[1:]))
            printed = {" ".join(line.split()) for line in output.splitlines()}
            quoted = [" ".join(line.split()) for line in re.sub(digits, "#", content).splitlines()]
            assert [line for line in quoted if line not in printed] == []
            command = ""


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_link_and_picture_is_there(name: str) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(TEXTS[name]))
    for target in targets:
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists() and file.resolve().is_relative_to(ROOT.resolve()), target
        assert not anchor or anchor in slugs(file.read_text()), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_command_in_a_sentence_is_known(name: str) -> None:
    known = set(find_commands())
    assert set(re.findall(r"`lrscale ([a-z][\w-]*)", TEXTS[name])) <= known
    assert all(known_module(module) for module in BENCHMARK.findall(TEXTS[name]))


def test_all_documents_are_checked() -> None:
    left_out = {"build", "dist", "studies"}
    found = {str(file.relative_to(ROOT)) for file in ROOT.rglob("README.md")}
    found = {name for name in found if not any(part.startswith(".") or part in left_out for part in Path(name).parts)}
    assert found == set(DOCUMENTS)


def test_the_set_up_commands_are_exactly_two() -> None:
    found = {name: re.findall(r"<!-- command: (\w+) -->\n```bash", text) for name, text in TEXTS.items()}
    assert found == {name: ["run", "test"] if name == "README.md" else [] for name in DOCUMENTS}


def test_the_readme_is_short() -> None:
    words = re.sub(r"<!--.*?-->", "", TEXTS["README.md"], flags=re.S).split()
    assert len(words) <= MOST_WORDS, f"README.md has {len(words)} words, {len(words) - MOST_WORDS} too many"


def test_every_command_and_sweep_is_named() -> None:
    text = TEXTS["README.md"] + TEXTS["sweeps/README.md"]
    assert [command for command in find_commands() if f"lrscale {command}" not in text] == []
    sweeps = [path.stem for path in (ROOT / "sweeps").glob("*.yaml")]
    named = re.findall(r"`lrscale reproduce (\w+)( --trust [^`]+)?`", TEXTS["sweeps/README.md"])
    assert set(sweeps) - {name for name, _ in named} == set()


@pytest.mark.parametrize(("name", "folder"), [("tests/README.md", "tests"), ("src/lrscale/README.md", "src/lrscale")])
def test_every_folder_is_named(name: str, folder: str) -> None:
    folders = [file.parent.name for file in (ROOT / folder).glob("*/__init__.py")]
    assert folders and [inner for inner in folders if f"`{inner}/`" not in TEXTS[name]] == []


def test_every_benchmark_is_named() -> None:
    texts = [file.read_text() for file in (ROOT / "tests" / "benchmarks").glob("*.py")]
    modules = {found[1] for text in texts if (found := BENCHMARK.search(ast.get_docstring(ast.parse(text)) or ""))}
    assert modules and modules == set(BENCHMARK.findall(TEXTS["tests/benchmarks/README.md"]))


def test_times_agree() -> None:
    quickstart = [re.findall(r"takes about (\d+ s)", TEXTS[name]) for name in ("README.md", "sweeps/README.md")]
    assert quickstart[0] == quickstart[1] and len(quickstart[0]) == 1
    for file in (ROOT / "tests" / "stress").glob("test_*.py"):
        minutes = re.search(r"about (\d+) minutes? on two cores", file.read_text())
        assert minutes is not None
        assert re.search(rf"^\| \[{file.name}\].*\| {minutes[1]} min \|$", TEXTS["tests/README.md"], re.M)


def test_the_citation_is_of_this_version_and_is_distributed() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f"version = {{{citation['version']}}}" in (ROOT / "sweeps" / "README.md").read_text()
    project = PROJECT["project"]
    assert {"cff-version", "message", "authors"} <= set(citation) and citation["type"] == "software"
    expected = {"title": project["name"], "version": lrscale.__version__, "license": project["license"]}
    assert {key: str(citation[key]) for key in expected} == expected and project["version"] == lrscale.__version__
    assert "CITATION.cff" in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
