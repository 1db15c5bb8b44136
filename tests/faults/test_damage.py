"""Damage done for real: full and read-only disks, damaged stores, two processes at once."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from lrscale.errors import Refusal
from lrscale.files import safe_name
from lrscale.locks import study_lock
from lrscale.run import reporting as report
from lrscale.search.journal import Journal
from lrscale.tracking.client import make_database
from tests.program import STUDY, TINY, at_work, here, lrscale
from tests.run.test_study import lrs_of, optuna_states


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own; mounting one takes root."""
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def fill(disk: Path, room: int = 0) -> None:
    """Fills a disk to the last byte, but for some room."""
    with (disk / "filler").open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(b"\0" * 4096) == 4096:
                pass
        file.truncate(max(0, file.tell() - room))


def test_a_disk_that_is_full_is_told_and_the_study_goes_on_when_there_is_room(
    disk: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(disk)
    said = here(disk, "run", "-m", *TINY, status=1, empty=False)
    assert said.count("\n") == 1 and "No space left" in said and "the same command goes on" in said
    (disk / "filler").unlink()
    for room in (0, 20_000, 300_000):
        with monkeypatch.context() as patch:
            at_work(patch, {2: partial(fill, disk, room)})
            said = here(disk, "run", "-m", *TINY, status=1)
        assert (
            said.splitlines()[-1].startswith("lrscale: ") and ("full" in said or "No space" in said) and "Traceback" not in said
        )
        (disk / "filler").unlink()
    here(disk, "run", "-m", *TINY)
    assert lrs_of(disk) == lrs_of(tiny)
    assert optuna_states(disk) == ["COMPLETE"] * 24


def test_a_folder_that_turns_read_only_is_told_and_the_study_goes_on_when_it_is_not(
    disk: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(tiny / "optuna.journal", disk)
    mount("-o", "remount,ro", str(disk))
    said = here(disk, "run", "-m", *TINY, status=2, empty=False)
    assert said.count("\n") == 1 and "folder that can be written" in said
    mount("-o", "remount,rw", str(disk))
    (disk / "studies").mkdir()
    with monkeypatch.context() as patch:
        at_work(patch, {2: partial(mount, "--bind", "-o", "ro", str(disk / "studies"), str(disk / "studies"))})
        said = here(disk, "run", "-m", *TINY, status=1)
    last = said.splitlines()[-1]
    assert "Read-only file system" in last and "the same command goes on" in last and "Traceback" not in said
    subprocess.run(["umount", str(disk / "studies")], check=True)
    here(disk, "run", "-m", *TINY)
    assert lrs_of(disk) == lrs_of(tiny)


def test_a_write_that_was_cut_off_is_taken_back(folder: Path) -> None:
    whole = b'{"op_code":0}\n'
    for half in (b'{"op_co', b'{"op_code":0}', b"\xff"):
        Path("optuna.journal").write_bytes(whole + half)
        journal = Journal("optuna.journal")
        assert Path("optuna.journal").read_bytes() == whole
        Path("optuna.journal").write_bytes(whole + half)  # by another process, while this one runs
        journal.append_logs([{"op_code": 1}])
        kept, added = Path("optuna.journal").read_bytes().splitlines(keepends=True)
        assert kept == whole and added.startswith(b'{"op_code":1,') and added.endswith(b"}\n")


@pytest.mark.parametrize("line", [b"garbage", b"[]", b"3", b"{}", b'{"op_code":0', b"\xff\xfe", b""])
def test_a_damaged_line_of_the_journal_is_named(folder: Path, line: bytes) -> None:
    content = b'{"op_code":0}\n' + line + b"\n"
    Path("optuna.journal").write_bytes(content)
    with pytest.raises(Refusal, match="line 2"):
        Journal("optuna.journal")
    assert Path("optuna.journal").read_bytes() == content


def _without(lines: list[str], number: int) -> list[str]:
    return lines[:number] + lines[number + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: _without(lines, 11),
        lambda lines: lines[:12] + lines[11:],
        lambda lines: [*lines[:11], lines[12], lines[11], *lines[13:]],
        lambda lines: [line.replace("0.", "1.", 1) if "param_value_internal" in line else line for line in lines],
    ],
    ids=["lost", "repeated", "exchanged", "edited"],
)
def test_valid_lines_of_the_journal_that_are_not_as_written_are_named(
    tiny: Path, folder: Path, damage: Callable[[list[str]], list[str]]
) -> None:
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    lines = Path("optuna.journal").read_text().splitlines(keepends=True)
    damaged = damage(lines)
    Path("optuna.journal").write_text("".join(damaged))
    said = here(folder, "run", "-m", *TINY, status=2)
    assert said.count("\n") == 1 and "optuna.journal with line" in said and "damaged or lost" in said
    assert Path("optuna.journal").read_text() == "".join(damaged)
    Path("optuna.journal").unlink()
    here(folder, "run", "-m", *TINY)
    assert lrs_of(folder) == lrs_of(tiny)


def test_a_journal_that_lost_its_end_is_completed_from_mlflow_and_counted_right(tiny: Path, folder: Path) -> None:
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    lines = Path("optuna.journal").read_bytes().splitlines(keepends=True)
    Path("optuna.journal").write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:20])
    said = here(folder, "run", "-m", *TINY)
    assert "24 trials, 24 of them in the store already" in said and "round 1" not in said
    assert lrs_of(folder) == lrs_of(tiny) and optuna_states(folder) == ["COMPLETE"] * 24


def test_a_journal_of_an_older_version_or_another_program_goes_on(folder: Path) -> None:
    Path("optuna.journal").write_bytes(b'{"op_code":0}\n{"op_code":1}\n')
    Journal("optuna.journal").append_logs([{"op_code": 2}, {"op_code": 3, "long": "x" * 9000}, {"op_code": 4}])
    with Path("optuna.journal").open("ab") as file:
        file.write(b'{"op_code":5}\n')
    Journal("optuna.journal").append_logs([{"op_code": 6}])
    assert [log["op_code"] for log in Journal("optuna.journal").read_logs(0)] == list(range(7))


def test_an_objective_that_was_changed_is_noticed(tiny: Path, folder: Path) -> None:
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    with closing(sqlite3.connect("mlflow.db")) as connection:
        changed = "UPDATE tags SET value = replace(value, '0.', '1.') WHERE rowid = (SELECT min(rowid) FROM tags WHERE key = ?)"
        connection.execute(changed, ("lrscale.objectives",))
        connection.commit()
    said = here(folder, "report", status=2)
    assert said.count("\n") == 1 and "was changed after it was recorded" in said and "Put back an intact copy" in said


def test_a_metric_that_was_changed_is_noticed(tiny: Path, folder: Path) -> None:
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    with closing(sqlite3.connect("mlflow.db")) as connection:
        changed = (
            "UPDATE latest_metrics SET value = 2 * value WHERE rowid = (SELECT min(rowid) FROM latest_metrics WHERE key = ?)"
        )
        connection.execute(changed, ("objective",))
        connection.commit()
    for command in (["report"], ["run", "-m", *TINY]):
        said = here(folder, *command, status=2)
        assert "its metric objective is" in said and "was changed after it was recorded as" in said


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_database_that_was_cut_off_is_named_and_left_alone(tiny: Path, folder: Path, kept: float) -> None:
    for file in tiny.iterdir():
        if file.is_file() and file.name.startswith(("mlflow", "optuna")):
            shutil.copy(file, folder)
    for file in folder.glob("mlflow.db-*"):
        file.unlink()
    database = folder / "mlflow.db"
    database.write_bytes(database.read_bytes()[: int(database.stat().st_size * kept)])
    before = database.read_bytes()
    for command in (["run", "-m", *TINY], ["report"], ["run"]):
        said = here(folder, *command, status=2)
        assert said.count("\n") == 1 and "mlflow.db" in said and "malformed" in said
    assert database.read_bytes() == before


def test_a_file_that_is_no_database_is_named(folder: Path) -> None:
    Path("mlflow.db").write_text("no database, but long enough to be taken for one\n" * 100)
    for command in (["run", "-m", *TINY], ["report"]):
        said = here(folder, *command, status=2)
        assert said.count("\n") == 1 and "not a database" in said


def test_a_database_is_made_in_one_move(folder: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", MAKE]) for _ in range(2)]
    make_database(folder / "mlflow.db")
    assert [process.wait() for process in processes] == [0, 0]
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]


MAKE = "from lrscale.tracking.client import make_database; from pathlib import Path; make_database(Path('mlflow.db').resolve())"


def test_a_study_is_run_by_one_process_and_others_run_beside_it(tiny: Path, folder: Path) -> None:
    commands = [[*TINY], [*TINY, "hydra.sweeper.study_name=other"]]
    running = [
        subprocess.Popen([sys.executable, "-m", "lrscale", "run", "-m", *c], cwd=folder, stdout=subprocess.DEVNULL)
        for c in commands
    ]
    lock = folder / "studies" / f"{STUDY}.lock"
    until = time.monotonic() + 60
    while not (folder / "mlflow.db").exists() and time.monotonic() < until:
        time.sleep(0.01)
    said = here(folder, "run", "-m", *TINY, status=2)
    assert str(lock) in said and said.count("\n") == 1
    assert [process.wait(120) for process in running] == [0, 0]
    found = lrs_of(folder)
    assert found == lrs_of(tiny) == lrs_of(folder, STUDY)
    assert optuna_states(folder) == ["COMPLETE"] * 48


def test_a_lock_is_a_studys_own_and_ends_with_its_holder(folder: Path) -> None:
    store = [folder / "mlflow.db"]
    with (
        study_lock("one", store),
        study_lock("another", store),
        pytest.raises(Refusal, match=r"one\.lock"),
        study_lock("one", store),
    ):
        pass
    with study_lock("one", store):
        pass


def test_studies_of_different_names_have_different_folders() -> None:
    names = ["a b", "a_b", "a/b", "../a_b", "a_b\n", "A_b", "", ".", "..", "x" * 300, "x" * 301, "ü", "\udcff"]
    made = [safe_name(name) for name in names]
    assert len(set(made)) == len(made)
    assert all(name.strip(".") and "/" not in name and len(name) < 100 for name in made)


@pytest.mark.parametrize("mark", ["?", "#", "%20"])
def test_a_folder_that_mlflow_would_take_for_another_is_refused(folder: Path, mark: str) -> None:
    place = folder / f"a{mark}b"
    place.mkdir()
    for command in (["run", "-m", *TINY], ["run"]):
        said = here(place, *command, status=2, empty=False)
        assert said.count("\n") == 1 and "tracking.uri" in said
    assert [path.name for path in folder.rglob("*")] == [place.name]


def test_a_folder_with_spaces_and_letters_of_any_alphabet_is_one_like_others(folder: Path, tiny: Path) -> None:
    place = folder / "a ü жы 'b'"
    place.mkdir()
    here(place, "run", "-m", *TINY)
    assert lrs_of(place) == lrs_of(tiny) and "lr_sum*" in here(place, "report")
    assert [path.name for path in folder.iterdir()] == [place.name]


def test_a_terminal_without_the_letters_of_a_study_shows_the_rest(folder: Path) -> None:
    here(folder, "run", "-m", *TINY, "hydra.sweeper.study_name='ü'")
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "TERM": "dumb"}
    said = lrscale(folder, "report", **ascii_only)
    assert "lr_sum*" in said and said.isascii()


def test_a_disk_that_fills_while_the_report_is_written_costs_files_and_no_answer(
    disk: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(report, "draw", lambda *given, draw=report.draw: (draw(*given), fill(disk))[0])
        said = here(disk, "run", "-m", *TINY, status=1)
    assert "How lr_sum*/lr_mean* goes with c" in said
    assert said.splitlines()[-1].startswith("lrscale: ") and "Traceback" not in said
    (disk / "filler").unlink()
    here(disk, "run", "-m", *TINY)
    assert lrs_of(disk) == lrs_of(tiny) and (disk / "studies" / STUDY / "report.html").stat().st_size > 10_000
