"""Runs the apps of tests/apps with the next version of Hydra, in an environment of its own: python -m tests.next_hydra

It needs a package index. The environment has the packages of this one, and a newer hydra-core before them. With the same
seeds, the sweeps must draw the same points and return the same values as here.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import optuna

from lrscale.search.journal import Journal
from tests.configs import ROOT
from tests.scripts import command, install

NEXT = "hydra-core>=1.4.0rc1,<1.5"


def make_environment(folder: Path) -> str:
    """Makes the environment and returns its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (site / "here.pth").write_text("\n".join([str(ROOT / "src"), *here]) + "\n")
    subprocess.run([python, "-m", "pip", "install", "-q", "--pre", NEXT], check=True)
    return str(python)


def trials(app: str, python: str, *arguments: str) -> list[tuple[object, ...]]:
    """Sweeps an app in two parts, and returns what Optuna holds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(app, folder)
        for count in (2, 4):
            ways = (*arguments, f"hydra.sweeper.n_trials={count}")
            subprocess.run(command(*ways, python=python), cwd=folder, check=True, env={**os.environ, "HYDRA_FULL_ERROR": "1"})
        storage = optuna.storages.JournalStorage(Journal(str(folder / "optuna.journal")))
        studies = [optuna.load_study(study_name=study, storage=storage) for study in optuna.get_all_study_names(storage)]
        return [(s.study_name, t.state.name, t.number, t.params, t.value) for s in studies for t in s.get_trials()]


def main() -> None:
    """Compares the two versions of Hydra; ends with an error where they differ."""
    with tempfile.TemporaryDirectory() as folder:
        python = make_environment(Path(folder))
        version = [python, "-c", "import hydra; print(hydra.__version__)"]
        found = subprocess.run(version, capture_output=True, text=True, check=True).stdout.strip()
        joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2")
        for app, arguments in (("numbers", ()), ("plain", ("epochs=1",)), ("own_mlflow", joblib), ("lit", ("epochs=1",))):
            theirs, ours = trials(app, python, *arguments), trials(app, sys.executable, *arguments)
            assert theirs == ours and theirs, f"{app}: {theirs} with Hydra {found}, {ours} here"
            print(f"{app}: the same {len(ours)} trials with Hydra {found}")


if __name__ == "__main__":
    main()
