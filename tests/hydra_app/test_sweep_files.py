"""A sweep file in any state works, or is refused in a line that names the cause; a short config takes the rest from defaults."""

from pathlib import Path

import pytest
from hydra.plugins.config_source import ConfigSource

from hydra_plugins.lrscale_sweeps import SweepFiles
from lrscale.errors import Refusal
from lrscale.hydra_app.sweep_file import sweep_text
from tests.program import TINY, here

GOOD = """\
# @package _global_
batch_size: 8
hydra:
  sweeper:
    n_trials: 2
study:
  question: où?
"""


def source(folder: Path) -> ConfigSource:
    (folder / "sweeps").mkdir(exist_ok=True)
    return SweepFiles("test", f"sweeps://{folder}")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (GOOD.encode("utf-16"), "sweeps/mine: must be a text in UTF-8, got NUL bytes, as UTF-16 has them. Save it as UTF-8."),
        (GOOD.replace("ù", "u").encode("utf-16-le"), "as UTF-16 has them"),
        (GOOD.encode("latin-1"), "got bytes of another encoding in line 7. Save it as UTF-8."),
        (GOOD.replace("    n_trials", "\tn_trials").encode(), "got a tab in line 5: indent with spaces."),
        (GOOD.replace("n_trials: 2", "n_trials: 2\n    n_trials: 3").encode(), "duplicate key n_trials in line 6."),
        (f"{GOOD}---\n{GOOD}".encode(), "another document in line 8."),
        (b"", "must say what to sweep, got an empty file. Begin with a copy of "),
        (b"---\n# nothing\n", "got an empty file"),
        (b"- batch_size\n", "must be a mapping, as `batch_size: 8` is, got ['batch_size']"),
        (b"study:\n  - question: x\n", "`study` must be a mapping, got [{'question': 'x'}]"),
        (b"compute: 2\n", "`compute` must be a mapping, got 2"),
        (b"optimizer: adam\n", "chosen in `defaults`, as in `- override /optimizer: adam`"),
        (b"hydra:\n  sweeper:\n    params: [8]\n", "`hydra.sweeper.params` must be a mapping, got [8]"),
        (b"batch_size: 8,16\n", "got '8,16'. To sweep it, write `batch_size: 8,16` in hydra.sweeper.params."),
        (b"optimizer: {lr: 'tag(log,interval(1e-3,1))'}\n", "To sweep it, write `optimizer.lr: tag(log,interval(1e-3,1))` in"),
        (b"params: {batch_size: 8}\n", "Did you mean hydra.sweeper.params?"),
        (b"hydra: {sweeper: {n_trails: 8}}\n", "Did you mean hydra.sweeper.n_trials?"),
        (b"hydra: {sweeper: {params: {batchsize: 8}}}\n", "Did you mean batch_size?"),
        (b"hydra: {sweeper: {params: {optimizer: {lr: 0.1}}}}\n", "got {'lr': 0.1}. Write optimizer.lr: 0.1."),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_cause(content: bytes, says: str, tmp_path: Path) -> None:
    files = source(tmp_path)
    (tmp_path / "sweeps" / "mine.yaml").write_bytes(content)
    with pytest.raises(Refusal) as refused:
        files.load_config("sweeps/mine")
    text = str(refused.value)
    assert says in text and text.startswith("sweeps/mine: ") and "\n" not in text and str(tmp_path) not in text


def test_a_file_with_a_mark_windows_line_ends_or_no_header_is_read(tmp_path: Path) -> None:
    files = source(tmp_path)
    for content in (GOOD.encode("utf-8-sig"), GOOD.replace("\n", "\r\n").encode(), GOOD.partition("\n")[2].encode()):
        (tmp_path / "sweeps" / "mine.yaml").write_bytes(content)
        assert files.load_config("sweeps/mine").config.study.question == "où?"


def test_a_file_that_cannot_be_opened_is_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(file: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Path, "read_bytes", denied)  # the tests run as root, who may read all
    with pytest.raises(Refusal, match=r"must be a file that can be read, got mine\.yaml: Permission denied"):
        sweep_text("sweeps/mine", Path("mine.yaml"))


def test_a_file_of_another_name_and_a_folder_are_named(folder: Path) -> None:
    (folder / "sweeps" / "sub").mkdir(parents=True)
    (folder / "sweeps" / "dir.yaml").mkdir()
    for name in ("ext.yml", "upper.YAML", "sub/inner.yaml"):
        (folder / "sweeps" / name).write_text(GOOD)
    for typed, says in {
        "ext": "There is no sweeps/ext: sweeps/ext.yml must be named ext.yaml: rename it.",
        "ext.yml": "sweeps/ext.yml must be named ext.yaml: rename it.",
        "upper": "sweeps/upper.YAML must be named upper.yaml: rename it.",
        "sub": "sweeps/sub is a folder. Take sweeps=sub/inner.",
        "dir": "sweeps/dir.yaml is a folder, and no sweep file.",
    }.items():
        said = here(folder, "run", "-m", f"sweeps={typed}", status=2, empty=False)
        assert said.count("\n") == 1 and says in said
    assert {file.name for file in folder.iterdir()} == {"sweeps"}
    said = here(folder, "run", "-m", "sweeps=./sweeps/sub/inner.yaml", "seeds=2", TINY[-1])
    assert "\nsub/inner " in said and "1 cells, 2 trials" in said


def test_a_config_of_the_users_own_takes_the_rest_from_the_defaults_of_its_name(folder: Path) -> None:
    (folder / "conf" / "optimizer").mkdir(parents=True)
    (folder / "conf" / "optimizer" / "mine.yaml").write_text("name: adamw\nlr: 0.01\n")
    (folder / "conf" / "optimizer" / "wrong.yaml").write_text("name: adamw\nlrr: 0.01\n")
    study = [
        "-m",
        "--config-dir",
        "conf",
        "optimizer=mine,adamw",
        *TINY[2:3],
        "batch_size=8",
        "hydra.sweeper.n_trials=1",
        TINY[-1],
    ]
    said = here(folder, "run", *study)
    assert "d2l-optimizer: 2 cells, 2 trials" in said
    mine, plain = (line.split()[-4] for line in said.splitlines() if line.startswith(("mine ", "adamw ")))
    assert mine == plain  # the objectives are equal: betas, eps and weight decay are
    said = here(folder, "run", "--config-dir", "conf", "optimizer=wrong", status=2)
    assert "`optimizer.lrr` is not known, got 0.01. Known: lr, betas" in said
