"""A user's own optimizer on the command line: a study and its answer, what is refused, and that only the user runs the file."""

import json
import sys
from pathlib import Path

import pytest

from lrscale.published.studies_table import RESULTS
from lrscale.tasks import source
from tests.program import here

LION = '''
from pathlib import Path
import torch
import lrscale
Path("RAN").touch()

def line(width: int = 1):
    x = torch.linspace(-1, 1, 32).unsqueeze(1)
    return lrscale.Task(lambda: torch.nn.Linear(1, width), torch.nn.L1Loss(), (x, 2 * x), (x, 2 * x))

class Lion(torch.optim.Optimizer):
    """Lion of Chen et al."""
    def __init__(self, params, lr: float = 1e-4, gamma: float = 0.9, delta: float = 0.99, weight_decay: float = 0.0):
        super().__init__(params, dict(lr=lr, gamma=gamma, delta=delta, weight_decay=weight_decay))
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_((group["gamma"] * m + (1 - group["gamma"]) * p.grad).sign(), alpha=-group["lr"])
                m.mul_(group["delta"]).add_(p.grad, alpha=1 - group["delta"])
'''
STUDY = ["run", "-m", "task=linear", "optimizer=mine.py:Lion", "reduction=mean,sum", "seeds=2", "task.examples=64"]
LR = "optimizer.lr=tag(log,interval(1e-3,1))"
SWEEP = """# @package _global_
defaults:
  - override /task: linear
IN_DEFAULTS
hydra:
  mode: MULTIRUN
  sweeper:
    n_trials: 6
    params:
IN_PARAMS
      reduction: mean,sum
      optimizer.lr: tag(log,interval(1e-3,1))
"""


@pytest.fixture
def mine(folder: Path, request: pytest.FixtureRequest) -> Path:
    """A working folder with an optimizer that no other test has trusted."""
    (folder / "mine.py").write_text(f"{LION}# {request.node.name}\n")
    return folder


def ran(folder: Path) -> bool:
    """Whether the file of the optimizer has been run since the last question."""
    marker = folder / "RAN"
    existed = marker.exists()
    marker.unlink(missing_ok=True)
    return existed


def test_a_study_measures_p_and_finds_the_law(mine: Path) -> None:
    said = here(mine, *STUDY, "batch_size=8,32", "hydra.sweeper.n_trials=8", LR)
    assert "lr_sum* = lr_mean* x c^0 exactly" in said
    words = " ".join(said.split())
    assert "p = 0 of mine.py:Lion was measured from its updates" in words
    assert "mine.py:Lion updates all seeds of a trial at once" in words


def test_twins_that_differ_share_points_but_are_trained_apart(mine: Path) -> None:
    said = here(
        mine, *STUDY, "batch_size=8", "hydra.sweeper.n_trials=8", LR, "optimizer.weight_decay=0.1", "hydra.sweeper.study_name=a"
    )
    assert "exactly" in said  # decoupled, with p = 0
    (mine / "mine.py").write_text((mine / "mine.py").read_text().replace(".sign(),", ".clamp(-1, 1),"))
    said = here(mine, *STUDY, "batch_size=8", "hydra.sweeper.n_trials=8", LR, "hydra.sweeper.study_name=b")
    assert "exactly" not in said and "is no law" in said


def test_options_of_the_class_alone_are_tuned_and_compared_with_other_optimizers(mine: Path) -> None:
    tuned = "optimizer.gamma=tag(log,interval(0.5,0.9))"
    here(mine, *STUDY, "batch_size=8", "hydra.sweeper.n_trials=4", "hydra.sweeper.sampler=random", LR, tuned)
    report = here(mine, "report")
    assert "mean" in report
    said = here(mine, *STUDY, "optimizer=sgd,mine.py:Lion", "batch_size=8", "hydra.sweeper.n_trials=16", LR)
    assert "c^-1 exactly (sgd)" in said and "c^0 exactly (mine.py:Lion)" in said


@pytest.mark.parametrize("task", ["linear", "mine.py:line"])
def test_a_single_training(mine: Path, task: str) -> None:
    said = here(mine, "run", f"task={task}", "optimizer=mine.py:Lion", "optimizer.lr=0.01", "batch_size=8", "seeds=2")
    assert "loss" in said


def test_a_study_of_ones_own_task_and_optimizer(mine: Path) -> None:
    own = ["task=mine.py:line", "optimizer=mine.py:Lion", "reduction=mean,sum", "batch_size=8", "seeds=2"]
    said = here(mine, "run", "-m", *own, "hydra.sweeper.n_trials=16", LR)
    assert "c^0 exactly" in said and "Gradients computed by" in said


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.beta=0.5", "optimizer.beta"),
        ("optimizer.gamma=high", "optimizer.gamma"),
        ("optimizer.lr=-1", "optimizer.lr"),
        ("probe=noise_scale", "needs an optimizer that comes with lrscale"),
        ("optimizer.beta=tag(log,interval(0.1,1))", "can be tuned"),
    ],
)
def test_a_wrong_key_or_value_is_refused_in_one_line(mine: Path, override: str, said: str) -> None:
    text = here(mine, *STUDY, override, status=2)
    assert said in text and text.count("\n") == 1
    assert not (mine / "studies").exists()


@pytest.mark.parametrize("place", ["IN_DEFAULTS", "IN_PARAMS"])
def test_a_sweep_file_names_an_optimizer_but_does_not_run_it(mine: Path, place: str) -> None:
    line = {"IN_DEFAULTS": "  - override /optimizer: mine.py:Lion", "IN_PARAMS": "      optimizer: mine.py:Lion"}[place]
    file = SWEEP.replace(place, line).replace("IN_DEFAULTS", "").replace("IN_PARAMS", "")
    (mine / "sweeps").mkdir()
    (mine / "sweeps" / "my.yaml").write_text(file)
    text = here(mine, "run", "-m", "sweeps=my", status=2)
    assert "type optimizer=mine.py:Lion yourself" in text and not ran(mine)
    here(mine, "run", "-m", "sweeps=my", "optimizer=mine.py:Lion")
    assert ran(mine)


def test_a_record_runs_it_only_where_the_user_trusts_the_file(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(mine, *STUDY, "batch_size=8", "hydra.sweeper.n_trials=6", LR, "hydra.sweeper.study_name=own")
    here(mine, "publish", "own")
    record = json.loads((mine / RESULTS / "own" / "record.json").read_text())
    assert record["cells"][0]["config"]["optimizer"]["p"] == 0
    assert ran(mine)
    monkeypatch.setattr(source, "_TRUSTED", {})  # as in another process
    for name in [name for name in sys.modules if name.startswith("lrscale_user_")]:
        monkeypatch.delitem(sys.modules, name)
    assert "take --trust mine.py" in here(mine, "reproduce", "own", status=2)
    assert not ran(mine)
    assert "reproduced own" in here(mine, "reproduce", "own", "--trust", "mine.py")
    assert ran(mine)
    (mine / "mine.py").write_text(LION + "# changed\n")
    assert "with sha256" in here(mine, "reproduce", "own", "--trust", "mine.py", status=2)
    assert not ran(mine)
