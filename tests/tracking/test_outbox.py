"""A tracking server that is down at the start, or killed in the middle; tests/stress has slow ones and lost answers."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrscale.errors import Failure, Refusal
from lrscale.run import job
from lrscale.tracking.courier import Courier
from lrscale.tracking.outbox import Entry, Outbox
from lrscale.tracking.store import Store
from tests.program import STUDY, TINY, _empty_store, at_work, here
from tests.run.test_study import lrs_of, optuna_states
from tests.servers import Server, free_port


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    place = tmp_path / "server"
    place.mkdir()
    shutil.copy(_empty_store(), place / "mlflow.db")
    server = Server(place)
    server.start()
    yield server
    server.kill()


def run(folder: Path, uri: str, *more: str, status: int = 0) -> str:
    return here(folder, "run", "-m", *TINY, "tracking=server", f"tracking.uri={uri}", *more, status=status, empty=False)


def test_a_server_that_is_down_at_the_start_is_named_and_nothing_is_written(folder: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    for command in (["run", "-m", *TINY], ["run"]):
        said = here(folder, *command, "tracking=server", f"tracking.uri={uri}", status=2, empty=False)
        assert said.count("\n") == 1 and uri in said
    said = here(folder, "sync", status=2)
    assert "nothing waits" in said and list(folder.iterdir()) == []


def test_a_server_killed_in_the_middle_gets_every_record_once_and_in_order(
    tiny: Path, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp(folder)
    with monkeypatch.context() as patch:
        at_work(patch, {3: server.kill})
        said = run(work, server.uri, status=1)
    assert "the study is complete" in said and "lrscale sync" in said and "Traceback" not in said
    assert "best lr" in said and "lr_sum*/lr_mean* goes with c" in said and (work / "studies" / STUDY / "report.html").is_file()
    theirs, ours = (json.loads((f / "studies" / STUDY / "report.json").read_text()) for f in (tiny, work))
    assert ours["cells"] == theirs["cells"] and ours["ratio"] == theirs["ratio"]
    (waiting,) = work.glob("*.outbox")
    lines = [json.loads(line) for line in waiting.read_text().splitlines()]
    numbers = [int(line["tags"]["lrscale.trial"]) for line in lines if line["kind"] == "run"]
    assert len(numbers) >= 12 and lines[-1]["kind"] == "end"
    assert optuna_states(work) == ["COMPLETE"] * 24
    said = here(work, "sync", status=1)
    assert "go on waiting" in said and waiting.exists()
    run(work, server.uri, status=2)
    server.start()
    said = here(work, "sync")
    assert f"{len(lines)} records of {STUDY} delivered" in said and not waiting.exists()
    assert_delivered(server, tiny)
    assert "lr_sum*" in here(work, "report", STUDY, "--tracking-uri", server.uri)
    assert "24 of them in the store already" in run(work, server.uri)


def test_a_single_training_is_kept_for_a_server_that_died_under_it(
    folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = ["run", "optimizer.lr=0.03", "tracking=server", f"tracking.uri={server.uri}"]
    with monkeypatch.context() as patch:
        work = job.work
        patch.setattr(job, "work", lambda *given: [server.kill(), *work(*given)][1:])
        said = here(folder, *training, status=1, empty=False)
    *_, objective, last = said.splitlines()
    assert objective.startswith("excess_risk") and last.startswith("lrscale: the training is complete")
    (waiting,) = folder.glob("*.outbox")
    server.start()
    assert "1 records of training mean b10 lr3e-2 delivered" in here(folder, "sync") and not waiting.exists()
    here(folder, *training, empty=False)
    store = Store.existing(server.uri)
    first, second = store._runs(store.experiment("lrscale"), "tags.`lrscale.kind` = 'single'")
    assert first.data.tags["lrscale.objectives"] == second.data.tags["lrscale.objectives"]
    assert first.info.run_id in here(folder, "reproduce", "--from", first.info.run_id, "--tracking-uri", server.uri)


def assert_delivered(server: Server, tiny: Path) -> None:
    """What the server holds is the study, number for number: each trial once, in the order of their rounds, none running."""
    assert lrs_of(server.uri) == lrs_of(tiny)
    store = Store.existing(server.uri)
    runs = list(store._runs(store.study(None).experiment_id, ""))
    assert {run.info.status for run in runs} == {"FINISHED"}
    trials = [run for run in runs if run.data.tags["lrscale.kind"] == "trial"]
    assert len(trials) == 24
    order = [(run.info.start_time, run.info.end_time) for run in sorted(trials, key=lambda run: run.info.end_time)]
    assert order == sorted(order)


def tmp(folder: Path) -> Path:
    work = folder / "work"
    work.mkdir()
    return work


def test_a_record_cut_off_while_it_was_put_into_the_outbox_is_taken_back(folder: Path) -> None:
    outbox = Outbox(Path("x.outbox"))
    entry = {"kind": "run", "uid": "1", "uri": "http://x", "study": "s"}
    outbox.put(entry)
    with open("x.outbox", "ab") as file:
        file.write(b'{"kind": "run", "u')
    assert outbox.entries() == [entry] == outbox.entries()
    outbox.put(entry)
    assert outbox.entries() == [entry, entry]
    Path("x.outbox").write_text("garbage\n")
    with pytest.raises(Refusal, match="line 1"):
        outbox.entries()


def test_a_server_that_was_away_for_long_and_is_back_at_the_end_gets_what_waits(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lrscale.tracking.courier.PATIENCE_SECONDS", 0.1)
    back, got = threading.Event(), []

    def deliver(entry: Entry, in_doubt: bool) -> None:
        if not back.is_set():
            raise Failure("away")
        got.append(entry["uid"])

    courier = Courier(Outbox(folder / "x.outbox"), "http://x", "x", deliver, back.is_set)
    courier.put({"kind": "run"})
    time.sleep(0.3)
    back.set()
    assert courier.settle() == 0 and len(got) == 1
    courier.stop()
