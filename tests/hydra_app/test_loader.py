"""The loader of a multirun composes what Hydra's own loader composes, and no config changes another."""

import os
import pickle
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from lrscale.hydra_app.declared import register
from lrscale.hydra_app.loader import MultirunLoader
from tests.configs import ROOT

JOBS = [
    ["batch_size=4"],
    ["batch_size=16", "+cells=[{optimizer.lr:[0.1,0.2]}]"],
    ["optimizer=adam", "optimizer.betas=[0.5,0.9]"],
    ["optimizer=adam"],
    ["task=linear", "budget=steps", "~schedule"],
    ["sweeps=quickstart", "seeds=3"],
    ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    ["hydra.searchpath=[sweeps://other]", "sweeps=mine"],
    ["batch_size=4"],
]
"""The overrides of jobs, one after another."""
SWEEP = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seeds: {}\n"
"""A sweep file."""


@pytest.fixture
def loaders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ConfigLoader, ConfigLoader]:
    """Hydra's own loader and that of a multirun."""
    (folder / "other" / "sweeps").mkdir(parents=True)
    (folder / "other" / "sweeps" / "mine.yaml").write_text(SWEEP.format(5))
    monkeypatch.setitem(os.environ, "LRSCALE_HOME", str(ROOT))
    register()
    setup_globals()
    path = create_config_search_path(str(ROOT / "conf"))
    return ConfigLoaderImpl(path), MultirunLoader(path)


def composed(loader: ConfigLoader, overrides: list[str]) -> str:
    """What a loader composes, as text; or what it says."""
    try:
        config = loader.load_configuration("config", overrides, RunMode.RUN)
    except HydraException as error:
        return repr(error)
    text = OmegaConf.to_yaml(config)
    with open_dict(config):  # as a job may
        config.batch_size = 77
        config.hydra.job.num = 5
        config.optimizer.new = "key"
    return text


def test_each_job_has_the_config_that_hydra_composes(loaders: tuple[ConfigLoader, ConfigLoader]) -> None:
    own, quick = loaders
    expected = [composed(own, job) for job in JOBS]
    assert [composed(quick, job) for job in JOBS] == expected
    assert "seeds: 5" in expected[7] and "betas" in expected[3] and "0.5" not in expected[3].partition("betas")[2][:40]
    assert composed(quick, ["batch_sice=4"]) == composed(own, ["batch_sice=4"]) != expected[0]


def test_a_launcher_takes_the_loader_to_another_process(loaders: tuple[ConfigLoader, ConfigLoader]) -> None:
    own, quick = loaders
    before = len(pickle.dumps(quick))
    expected = composed(quick, JOBS[0])
    assert len(pickle.dumps(quick)) == before < len(pickle.dumps(own)) + 200, "what is kept stays here"
    assert composed(pickle.loads(pickle.dumps(quick)), JOBS[0]) == expected == composed(own, JOBS[0])


def test_files_are_read_once_and_a_changed_one_changes_no_later_job(
    loaders: tuple[ConfigLoader, ConfigLoader], folder: Path
) -> None:
    (folder / "sweeps").mkdir()
    file = folder / "sweeps" / "mine.yaml"
    file.write_text(SWEEP.format(6))
    expected = composed(loaders[1], ["sweeps=mine"])
    file.write_text(SWEEP.format(7))
    assert composed(loaders[1], ["sweeps=mine"]) == expected != composed(loaders[0], ["sweeps=mine"])
