"""The Tab key completes commands, options and the words of `lrscale run` in bash."""

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
        "lrscale report --tr": "--tracking-uri |",
        "lrscale report --format h": "|",
    }
    for typed, completed in expected.items():
        ended = subprocess.run(["bash", "-c", TAB, "_", script, typed], capture_output=True, text=True, cwd=tmp_path)
        assert ended.stdout == completed, (typed, ended.stderr)
