"""What is typed wrong is answered with the right command, in one line, and help shows what can be set."""

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
    ("-m", "`-m` needs something to sweep, got one value of each key. Take sweeps=quickstart,"),
]


@pytest.mark.parametrize(("typed", "says"), TYPED, ids=[typed for typed, _ in TYPED])
def test_what_was_meant_is_said(typed: str, says: str, tmp_path: Path) -> None:
    said = here(tmp_path, "run", *typed.split(" "), status=2, empty=False)
    assert says in said
    assert said.count("\n") == 1
    assert "Config search path" not in said and "mismatched input" not in said
    assert list(tmp_path.iterdir()) == []


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
