"""Who may import which framework, and that the core stays pure."""

import ast
import sys
from pathlib import Path

import pytest

from tests.configs import ROOT

SOURCE = ROOT / "src" / "lrscale"
DOORS = {
    "optuna": {"sweeper", "journal"},
    "optuna_dashboard": {"dashboard"},
    "mlflow": {"tracking", "reading", "client"},
    "hydra": {"app"},
    "omegaconf": {"app"},
    "argparse": {"cli"},
    "plotly": {"interactive"},
    "matplotlib": {"plots", "palette", "quantity_plots"},
    "jinja2": {"report_html"},
    "sklearn": {"datasets"},
}
CORE = {
    "rules", "spec", "streams", "models", "tasks", "modules", "reduction", "minibatches", "optim", "train", "results",
    "theory", "edges", "intervals", "estimate", "forms", "ladder", "strides", "plan", "records", "homogeneity", "translate",
    "sweepfile", "quantity", "probes", "plain", "views",
}  # fmt: skip
SHELL_PROBES = {"probes.gradient_scale"}
"""Start processes, through `ranks`."""
IMPURE = {"os", "pathlib", "time", "datetime", "logging", "random", "subprocess", "socket", "shutil", "tempfile", "io"}


def imports(file: Path) -> set[str]:
    """Top-level names of the modules that a file imports, anywhere in it; ours with their second name."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} if node.module != "lrscale" else {f"lrscale.{alias.name}" for alias in node.names}
    return {".".join(name.split(".")[:2]) if name.startswith("lrscale.") else name.split(".")[0] for name in found}


MODULES = {file.stem: imports(file) for file in SOURCE.glob("*.py")}
MODULES |= {f"probes.{file.stem}": imports(file) for file in (SOURCE / "probes").glob("*.py")}
MODULES["probes"] = MODULES.pop("probes.__init__")


@pytest.mark.parametrize("framework", DOORS)
def test_each_framework_enters_through_its_door(framework: str) -> None:
    assert {name for name, used in MODULES.items() if framework in used} == DOORS[framework]


@pytest.mark.parametrize("module", sorted((CORE | {name for name in MODULES if name.startswith("probes.")}) - SHELL_PROBES))
def test_the_core_is_pure(module: str) -> None:
    allowed = {"torch", "numpy", "scipy", "lrscale", *sys.stdlib_module_names} - IMPURE
    ours = {name.partition(".")[2] for name in MODULES[module] if name.startswith("lrscale.")}
    assert ours - {"NUMBERS", "theory", "edges"} <= CORE
    assert {name for name in MODULES[module] if not name.startswith("lrscale.")} <= allowed


def test_imports_point_downwards_only() -> None:
    below: dict[str, set[str]] = {n: {u.partition(".")[2] for u in used} & set(MODULES) - {n} for n, used in MODULES.items()}
    while below:
        ground = {name for name, used in below.items() if not used & set(below)}
        assert ground, f"imports in a circle among {sorted(below)}"
        below = {name: used for name, used in below.items() if name not in ground}


def test_the_plugin_is_light() -> None:
    plugin = ROOT / "src" / "hydra_plugins" / "lrscale_sweeper.py"
    top = {node.module for node in ast.parse(plugin.read_text()).body if isinstance(node, ast.ImportFrom)}
    assert not any(name and name.split(".")[0] in ("torch", "optuna", "mlflow", "lrscale") for name in top)
