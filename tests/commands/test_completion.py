"""The Tab key completes commands, options and the words of `lrscale run`: run in bash, and read in zsh and fish."""

import subprocess
from pathlib import Path

from tests.program import here

TAB = '_lrscale() { :; }; source "$1"; COMP_LINE="$2"; COMP_POINT=${#2}; _lrscale; printf "%s|" "${COMPREPLY[@]}"'


def test_tab_completes_what_can_be_typed(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "of_mine.yaml").touch()
    script = tmp_path / "script.sh"
    script.write_text(here(tmp_path, "completion", "bash"))
    expected = {
        "lrscale ru": "run |",
        "lrscale run optimizer=adamw": "adamw |",
        "lrscale run sweeps=of_": "of_mine |",
        "lrscale run -m batch": "batch_size=|",
        "lrscale run hydra.sweeper.samp": "hydra.sweeper.sampler=|",
        "lrscale run optimizer.nest": "optimizer.nesterov=|",
        "lrscale run budget.e": "budget.epochs=|",
        "lrscale run reduction=su": "sum|sum_over_nominal|",
        "lrscale report --tr": "--tracking-uri |",
        "lrscale report quick": "quickstart |",
        "lrscale report --format x": "|",
    }
    for typed, completed in expected.items():
        ended = subprocess.run(["bash", "-c", TAB, "_", script, typed], capture_output=True, text=True, cwd=tmp_path)
        assert ended.stdout == completed, (typed, ended.stderr)


def test_the_scripts_of_other_shells_have_the_same_words(tmp_path: Path) -> None:
    zsh, fish = (here(tmp_path, "completion", shell) for shell in ("zsh", "fish"))
    (of_run,) = (line for line in zsh.splitlines() if line.lstrip().startswith("run) all=("))
    assert {"optimizer=adamw", "batch_size=", "sweeps=quickstart"} <= set(of_run.split())
    assert zsh.startswith("_lrscale() {") and zsh.rstrip().endswith("compdef _lrscale lrscale")
    (of_run,) = (line for line in fish.splitlines() if "__fish_seen_subcommand_from run'" in line)
    assert {"optimizer=adamw", "batch_size=", "sweeps=quickstart"} <= set(of_run.replace("'", " ").split())
