"""Tests a running study with a tracking server that stops and comes back, loses its answers or its database, or is slow.

python -m pytest -q -s tests/stress/test_server.py      (about 3 minutes on two cores)
"""

import random
import shutil
import time
from pathlib import Path

import pytest

from tests.program import TINY, _empty_store, at_work, here
from tests.servers import Server, proxy
from tests.tracking.test_outbox import assert_delivered, run, server, tmp

__all__ = ["server"]  # a fixture
CALL_SECONDS = 0.1


def test_a_server_that_comes_back_gets_every_record_without_being_asked(
    tiny: Path, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp(folder)
    at_work(monkeypatch, {2: server.kill, 5: server.start})
    said = run(work, server.uri)
    assert "lr_sum*" in said and list(work.glob("*.outbox")) == []
    assert_delivered(server, tiny)


def test_answers_that_get_lost_make_no_record_twice(tiny: Path, folder: Path, server: Server) -> None:
    draw, lost = random.Random(1), []

    def lose(path: str, count: int) -> bool:
        if 20 < count < 100 and path.endswith(("runs/create", "runs/update", "runs/log-batch")) and draw.random() < 0.15:
            lost.append(path)
        return bool(lost) and lost[-1] is path

    work = tmp(folder)
    with proxy(server.port, 0.0, lose) as uri:
        run(work, uri)
    assert_delivered(server, tiny)
    assert len(lost) >= 5
    print(f"\nanswers lost: {len(lost)}; records lost or twice: 0")


def test_a_slow_server_costs_no_more_than_its_own_time(tiny: Path, folder: Path, server: Server) -> None:
    calls = []

    def count(path: str, number: int) -> bool:
        calls.append(path)
        return False

    spent = {}
    for seconds in (0.0, CALL_SECONDS):
        work = folder / f"after {seconds} s"
        work.mkdir()
        calls.clear()
        with proxy(server.port, seconds, count) as uri:
            started = time.monotonic()
            run(work, f"{uri}", "hydra.sweeper.study_name=s" + str(seconds))
            spent[seconds] = time.monotonic() - started
    own = CALL_SECONDS * len(calls)
    print(f"\n{spent[0.0]:.1f} s without delay, {spent[CALL_SECONDS]:.1f} s with {len(calls)} calls of {CALL_SECONDS} s each")
    assert spent[CALL_SECONDS] <= spent[0.0] + 1.05 * own


def test_a_server_that_came_back_empty_is_recorded_again(tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, work = folder / "server", folder / "work"
    for made in (place, work):
        made.mkdir()
    shutil.copy(_empty_store(), place / "mlflow.db")
    server = Server(place)
    server.start()

    def lose_all() -> None:
        server.kill()
        for file in place.glob("mlflow.db*"):
            file.unlink()
        shutil.copy(_empty_store(), place / "mlflow.db")
        server.start()

    command = ["run", "-m", *TINY, f"tracking.uri={server.uri}"]
    try:
        with monkeypatch.context() as patch:
            at_work(patch, {3: lose_all})
            said = here(work, *command, status=1, empty=False)
        assert "the study is complete" in said and "was its database replaced?" in said and "lrscale sync --set-aside" in said
        for again in (command, ["sync"]):
            assert "lrscale sync --set-aside" in here(work, *again, status=1, empty=False)
        assert "set aside in" in here(work, "sync", "--set-aside")
        assert len(list(work.glob("*.outbox.aside-1"))) == 1 and list(work.glob("*.outbox")) == []
        assert "lr_sum*" in here(work, *command, empty=False)
        assert_delivered(server, tiny)
    finally:
        server.kill()
