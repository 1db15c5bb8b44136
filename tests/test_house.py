"""The house: which folder may import what, that imports point downwards, and that names are not used twice."""

import ast
import inspect
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import lrscale
from tests.configs import ROOT

SOURCE = ROOT / "src" / "lrscale"
FLOORS = [
    "", "law", "estimate", "tasks", "training", "probes", "audit", "study", "search", "tracking", "report", "mlflow_ui", "run",
    "published", "hydra_app", "commands",
]  # fmt: skip
"""The folders from the bottom up; the first is the root. A folder imports itself and those below."""
NEVER = {"report": {"search", "tracking"}, "estimate": {"law"}, "tasks": {"law", "estimate"}}
"""Folders below that a folder does without."""
FRAMEWORKS = {
    "torch": {"", "tasks", "training", "probes", "audit"},
    "optuna": {"search"},
    "optuna_dashboard": {"mlflow_ui"},
    "mlflow": {"tracking"},
    "hydra": {"hydra_app"},
    "omegaconf": {"hydra_app"},
    "argparse": {"commands"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "sklearn": {"tasks"},
}
"""The folders that import a framework; torch stays out of what only composes, records and shows."""
TORCH_AT_ROOT = {"streams", "provenance"}
"""The generators of random numbers, and the version that a record names."""
PURE = {"law", "estimate", "tasks", "training", "probes", "audit", "study"}
"""Folders without files, clocks or environment."""
IMPURE = {"os", "pathlib", "time", "datetime", "logging", "random", "subprocess", "socket", "shutil", "tempfile"}
READS = {
    "tasks/images": {"pathlib"},
    "tasks/neighbours": {"pathlib"},
    "tasks/source": {"pathlib", "sys"},
    "study/own_code": {"pathlib"},
    "training/forms": {"time"},
    "training/process_group": IMPURE,
    "audit/state": {"pathlib", "random", "sys"},
    "audit/draws": {"random"},
    "audit/processes": IMPURE,
    "audit/watch": {"sys"},
}
"""Images and a user's code are read from files; forms of gradients are timed; process groups start processes; an audit puts
Python's random state back, and tells the user's code from that of packages."""
ONE_MEANING = {"COMMAND", "Array", "assert_batch_invariant", "measure", "train"}
"""Public names of several modules: each module's command, numpy's float64 array, each probe's measurement, and the engine's
training, which `lrscale.train` calls; the assertion, and pytest's fixture of the same name."""
LIGHT = ("study.config", "hydra_app.plan", "commands.cli", "tasks.registry", "law.translation")
"""Modules that are imported before there is something to train."""


def modules() -> dict[str, ast.Module]:
    """The syntax trees by path without suffix."""
    return {str(f.relative_to(SOURCE).with_suffix("")): ast.parse(f.read_text()) for f in SOURCE.rglob("*.py")}


TREES = modules()


def folder_of(module: str) -> str:
    return module.partition("/")[0] if "/" in module else ""


def imports(tree: ast.Module) -> set[str]:
    """Dotted names of all that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(tree: ast.Module) -> set[str]:
    """The modules of this project that a module imports, as in TREES."""
    found = set()
    for name in imports(tree):
        parts = name.split(".")
        if parts[0] == "lrscale":
            paths = ["/".join(parts[1:end]) for end in range(len(parts), 1, -1)]
            found |= {next((p for p in (*paths, *(f"{path}/__init__" for path in paths)) if p in TREES), "__init__")}
    return found


@pytest.mark.parametrize("module", sorted(TREES))
def test_imports_point_downwards(module: str) -> None:
    if module in ("__init__", "__main__"):
        return  # the public API, which is imported on first use (see below), and the program
    floor = FLOORS.index(folder_of(module))
    for other in ours(TREES[module]):
        assert FLOORS.index(folder_of(other)) <= floor, f"{module} imports {other}, which lies above it"
        assert folder_of(other) not in NEVER.get(folder_of(module), set()), f"{module} imports {other}"


def test_no_imports_run_in_a_circle() -> None:
    below = {name: ours(tree) - {name} for name, tree in TREES.items()}
    below["__init__"] = set()  # see above
    below["tasks/__init__"] = set()  # its modules declare themselves in its registry
    while below:
        ground = {name for name, used in below.items() if not used & set(below)}
        assert ground, f"imports in a circle among {sorted(below)}"
        below = {name: used for name, used in below.items() if name not in ground}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_framework_has_its_folders(framework: str) -> None:
    using = {name for name, tree in TREES.items() if any(used.split(".")[0] == framework for used in imports(tree))}
    assert {folder_of(name) for name in using} == FRAMEWORKS[framework]
    if framework == "torch":
        assert {name for name in using if "/" not in name} == TORCH_AT_ROOT


@pytest.mark.parametrize("module", sorted(name for name in TREES if folder_of(name) in PURE))
def test_the_core_touches_neither_files_nor_clocks(module: str) -> None:
    used = {name.split(".")[0] for name in imports(TREES[module])}
    assert not (used & IMPURE) - READS.get(module, set())


def test_the_root_is_small_and_each_folder_says_what_it_holds() -> None:
    assert len([name for name in TREES if "/" not in name]) <= 10
    folders = {path.parent for path in SOURCE.rglob("*.py")} - {SOURCE}
    for folder in folders:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert text and "import" in text.lower(), f"{folder.name}/__init__.py must say what it holds and imports"


def test_a_public_name_stands_in_one_module() -> None:
    where = defaultdict(set)
    for module, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
            else:
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                names = [n.id for target in targets if target for n in ast.walk(target) if isinstance(n, ast.Name)]
            for name in names:
                where[name].add(module)
    twice = {name: found for name, found in where.items() if len(found) > 1 and not name.startswith("_")}
    assert set(twice) <= ONE_MEANING, twice


def test_the_package_study_is_a_public_function_too() -> None:
    assert lrscale.study.config.make_training is lrscale.make_training
    assert callable(lrscale.study) and list(inspect.signature(lrscale.study).parameters)[:2] == ["task", "reduction"]


def test_the_public_api_is_there_and_lazy() -> None:
    assert all(getattr(lrscale, name) is not None for name in lrscale.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lrscale.nothing
    heavy = "print(sorted({'torch', 'mlflow', 'optuna', 'hydra', 'scipy'} & set(sys.modules)))"
    command = [sys.executable, "-c", f"import sys, lrscale; lrscale.translate; lrscale.Batch; lrscale.study; {heavy}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("module", LIGHT)
def test_what_composes_does_not_import_torch(module: str) -> None:
    command = [sys.executable, "-c", f"import sys, lrscale.{module}; print('torch' in sys.modules)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("plugin", sorted(Path(ROOT / "src" / "hydra_plugins").glob("*.py")))
def test_hydras_plugins_are_light(plugin: Path) -> None:
    top = {node.module for node in ast.parse(plugin.read_text()).body if isinstance(node, ast.ImportFrom)}
    assert not any(name and name.split(".")[0] in ("torch", "optuna", "mlflow", "lrscale") for name in top)
