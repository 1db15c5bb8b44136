"""What is typed wrong is answered with the right command, in one line, and help shows what can be set."""

import subprocess
import sys
from pathlib import Path

import pytest

from lrscale.commands.cli import main
from lrscale.files import home
from tests.program import here, lrscale

TYPED = [
    ("lr=0.1", "Did you mean optimizer.lr=0.1?"),
    ("batch=8", "Did you mean batch_size=8?"),
    ("bs=8", "Did you mean batch_size=8?"),
    ("momentum=.9", "Did you mean optimizer.momentum=.9?"),
    ("n_trials=3", "Did you mean hydra.sweeper.n_trials=3?"),
    ("sampler=tpe", "Did you mean hydra.sweeper.sampler=tpe?"),
    ("hydra.sweeper.ntrials=3", "Did you mean hydra.sweeper.n_trials=3?"),
    ("+lr=0.1", "Did you mean optimizer.lr?"),
    ("sweeps=quikstart", "Did you mean sweeps=quickstart?"),
    ("optimizer=Adam", "Did you mean optimizer=adam?"),
    ("reduction=summ", "Did you mean reduction=sum?"),
    ("optimizer=adam optimizer.momentum=0.9", "is not an option of optimizer=adam, which has lr, betas,"),
    ("optimizer.lr =0.1", "Did you mean lrscale run optimizer.lr=0.1?"),
    ("optimizer.lr= 0.1", "Did you mean lrscale run optimizer.lr=0.1?"),
    ("lr = 0.1", "Did you mean lrscale run optimizer.lr=0.1?"),
    ("optimizer.lr:0.1", "Did you mean lrscale run optimizer.lr=0.1?"),
    ("--lr 0.1", "Did you mean optimizer.lr=0.1?"),
    ("quickstart", "Did you mean lrscale run -m sweeps=quickstart?"),
    ("-m optimizer.lr=loguniform(1e-4,1)", "Did you mean lrscale run -m 'optimizer.lr=tag(log,interval(1e-4,1))'?"),
    ("-m batch_size=8;16", "Did you mean lrscale run -m batch_size=8,16?"),
    ("-m batch_size=[8,16]", "To compare several: lrscale run -m batch_size=a,b."),
    ("optimizer.lr=0.1,0.2", "lrscale run -m optimizer.lr=0.1,0.2"),
    ("quickstart.yaml", "Did you mean lrscale run -m sweeps=quickstart?"),
    ("sweeps/quickstart.yaml", "Did you mean lrscale run -m sweeps=quickstart?"),
    ("-m sweeps=quickstart,eps", "`sweeps` must have one value, got sweeps=quickstart,eps"),
    ("task=mnist", "Did you mean task=fashion_mnist?"),
    ("task=./mine.py", "Name the function in the file too, as in task=./mine.py:make."),
    ("probe=gradient_scale probe.x=3", "`probe.x` is not an option of probe=gradient_scale, which has loss"),
    ("-m batch_size=8,16 hydra/sweeper=optuna", "`hydra/sweeper` must be study, got 'hydra/sweeper=optuna'."),
    ("-m batch_size=8,16 hydra.run.dir=out", "Take hydra.sweep.dir in its place."),
    ("--config-name other", "take sweeps=NAME."),
    ("-sc query=bash", 'Take eval "$(lrscale completion bash)".'),
    ("--cfg job --package foo", "package 'foo' not found"),
    ("-m", "`-m` needs something to sweep, got one value of each key. Take sweeps=quickstart,"),
]


@pytest.mark.parametrize(("typed", "says"), TYPED, ids=[typed for typed, _ in TYPED])
def test_what_was_meant_is_said(typed: str, says: str, tmp_path: Path) -> None:
    said = here(tmp_path, "run", *typed.split(" "), status=2, empty=False)
    assert says in said
    assert said.count("\n") == 1
    assert "Config search path" not in said and "mismatched input" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_key_is_answered_without_importing_torch(tmp_path: Path) -> None:
    code = "import sys; from lrscale.commands.cli import main; print(main(['run', 'lr=0.1', 'foo=1']), 'torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout == "2 False\n" and "Did you mean optimizer.lr=0.1?" in ended.stderr


@pytest.mark.parametrize(("flag", "says"), [("--hydra-help", "--multirun,-m"), ("--info", "Installed Hydra Plugins")])
def test_a_flag_of_hydra_is_answered_by_hydra(flag: str, says: str, tmp_path: Path) -> None:
    assert says in lrscale(tmp_path, "run", flag)


def test_a_sweep_file_without_multirun_is_not_one_training_at_a_default_lr(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text("hydra: {sweeper: {params: {batch_size: '8,16'}}}\n")
    said = here(tmp_path, "run", "sweeps=mine", status=2, empty=False)
    assert "it sweeps batch_size, got one training. Add -m: lrscale run -m sweeps=mine." in said
    assert [file.name for file in tmp_path.iterdir()] == ["sweeps"]


def test_help_shows_comments_rules_and_the_settings_of_a_study(tmp_path: Path) -> None:
    said = lrscale(tmp_path, "run", "--help")
    assert "batch_size: 10            # examples in a micro-batch" in said
    assert "  lr: 0.03                # finite and > 0" in said
    assert "n_trials: 16              # trials per cell" in said
    assert "gradient_scale, headline, homogeneity" in said
    assert "there is one, else mps" in said.replace("\n                          #", "")


def test_a_bare_lrscale_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "lrscale run -m sweeps=quickstart" in capsys.readouterr().out


def test_a_run_without_values_trains_at_the_lr_of_the_book(tmp_path: Path) -> None:
    said = here(tmp_path, "run")
    assert "'mean b10 lr3e-2'" in said
    assert float(said.split("excess_risk ")[1].split()[0]) < 1e-3


@pytest.mark.parametrize("form", ["bom", "no header", "crlf"])
def test_a_sweep_file_of_another_editor_works(form: str, tmp_path: Path) -> None:
    text = (home() / "sweeps" / "quickstart.yaml").read_text()
    forms = {
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "no header": text.split("\n", 1)[1].encode(),
        "crlf": text.replace("\n", "\r\n").encode(),
    }
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_bytes(forms[form])
    said = here(tmp_path, "run", "sweeps=mine", "-m", "batch_size=0", status=2, empty=False)
    assert "b0 mean, b0 sum: `batch_size` must be" in said or "`batch_size` must be a whole number" in said


def test_a_flag_may_stand_after_overrides(tmp_path: Path) -> None:
    said = here(tmp_path, "run", "batch_size=0,8", "-m", "seeds=2", status=2, empty=False)
    assert "b0: `batch_size` must be" in said
