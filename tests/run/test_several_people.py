"""One study, several people: processes from several folders on one MLflow server, which the tests start.

tests/stress/test_several_people.py has the long series of delays.
"""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest
from mlflow.entities import Run

from lrscale.errors import Failure, Refusal
from lrscale.locks import first_start
from lrscale.tracking import lease
from lrscale.tracking.lease import study_lease
from lrscale.tracking.outbox import Outbox
from lrscale.tracking.schema import HOLDER, KIND, LEASE, PARENT, PLAN
from lrscale.tracking.store import Store
from tests.program import TINY, _empty_store, at_work, here
from tests.run.test_study import lrs_of
from tests.scripts import install, sweep
from tests.servers import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("server")
    shutil.copy(_empty_store(), place / "mlflow.db")
    server = Server(place)
    server.start()
    yield server
    server.kill()


def options(server: Server, study: str) -> list[str]:
    return ["run", "-m", *TINY, "tracking=server", f"tracking.uri={server.uri}", f"hydra.sweeper.study_name={study}"]


def start(folder: Path, server: Server, study: str) -> "subprocess.Popen[str]":
    """Starts the tiny study in a folder of its own."""
    folder.mkdir(exist_ok=True)
    arguments = [sys.executable, "-m", "lrscale", *options(server, study)]
    return subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def runs_of(server: Server, study: str) -> list[Run]:
    store = Store.existing(server.uri)
    return list(store._runs(store.experiment(study), ""))


def trials_of(server: Server, study: str) -> int:
    try:
        return sum(run.data.tags.get(KIND) == "trial" for run in runs_of(server, study))
    except Failure:  # there is no such experiment yet
        return 0


def until(process: "subprocess.Popen[str]", server: Server, study: str, trials: int) -> None:
    while trials_of(server, study) < trials:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def wait_for_its_death(pid: int) -> None:
    """Waits until a process is gone, and does not ask how it ended."""
    while lease.birth(pid) is not None:
        time.sleep(0.01)


def assert_once(server: Server, tiny: Path, study: str) -> None:
    """The server holds the study, number for number: each trial once, nothing left running, no claim left."""
    assert lrs_of(server.uri, study) == lrs_of(tiny)
    runs = runs_of(server, study)
    assert Counter((run.data.tags[KIND], run.info.status) for run in runs) == {
        ("trial", "FINISHED"): 24,
        ("study", "FINISHED"): 1,
    }
    store = Store.existing(server.uri)
    assert not [key for key in store.experiment_tags(store.experiment(study)) if key.startswith(LEASE)]


def two_start(folder: Path, server: Server, tiny: Path, delay: float, study: str) -> list[int]:
    """Two processes start one study, the second after a delay; both end well, or one is refused and has written nothing."""
    folders = [folder / "one", folder / "two"]
    first = start(folders[0], server, study)
    time.sleep(delay)
    processes = [first, start(folders[1], server, study)]
    said = [process.communicate(timeout=300)[0] for process in processes]
    ended = [process.returncode for process in processes]
    assert sorted(ended) in ([0, 0], [0, 2]), said
    for status, text, place in zip(ended, said, folders, strict=True):
        if status == 2:
            assert text.startswith("lrscale: ") and text.count("\n") == 1, text
            assert "runs it since" in text and str(folders[1 - folders.index(place)])[-200:] in text
            assert list(place.iterdir()) == []
    assert_once(server, tiny, study)
    return ended


@pytest.mark.parametrize("delay", [0, 0.5, 2])
def test_two_that_start_one_study_make_no_trial_twice(tiny: Path, tmp_path: Path, server: Server, delay: float) -> None:
    two_start(tmp_path, server, tiny, delay, f"two after {delay} s")


def test_after_a_kill_the_same_machine_goes_on_at_once_and_another_watches_first(
    tiny: Path, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(folder / "one", server, "killed")
    until(process, server, "killed", 4)
    said_of = ("status", "killed", "--tracking-uri", server.uri)
    running = here(folder, *said_of)
    assert "running after" in running and f"(process {process.pid} in {folder / 'one'}"[-100:] in running.replace("\n", "")
    assert "runs it since" in " ".join(running.split()) and "last sign of life" in " ".join(running.split())
    process.kill()  # and nobody asks how it ended before it is taken over
    wait_for_its_death(process.pid)
    assert "interrupted after" in (killed := here(folder, *said_of)) and "of life" not in killed
    store = Store(server.uri)
    experiment = store.experiment("killed")
    (claim,) = ((key, text) for key, text in store.experiment_tags(experiment).items() if key.startswith(LEASE))
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(lease, "this_machine", lambda: "another machine")
        with pytest.raises(Refusal, match="killed is noticed after 30 s"), study_lease(server.uri, "killed", print):
            pass
        elsewhere.setattr(lease, "DEAD_SECONDS", 1.0)
        elsewhere.setattr(lease, "SKEW_SECONDS", -1000.0)
        said: list[str] = []
        begun = time.monotonic()
        with study_lease(server.uri, "killed", said.append):
            assert time.monotonic() - begun > 1 and "gives no sign of life. It is watched for 1 s" in said[0]
    store.tag_experiment(experiment, dict([claim]))
    monkeypatch.setattr(lease, "DEAD_SECONDS", 1000.0)
    assert "taken over" not in here(folder / "one", *options(server, "killed"), empty=False)
    assert_once(server, tiny, "killed")
    process.communicate()


def test_one_that_was_taken_over_stops_and_ends_nothing(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[int] = []
    with ExitStack() as stack:

        def taken_over() -> None:
            with monkeypatch.context() as patch:  # this machine sleeps, and a process on another one takes over
                patch.setattr(lease.SharedLease, "_beat", lambda _: None)
                patch.setattr(lease, "this_machine", lambda: "another machine")
                patch.setattr(lease, "DEAD_SECONDS", 0.5)
                patch.setattr(lease, "SKEW_SECONDS", -1000.0)
                stack.enter_context(study_lease(server.uri, "slept", print))
            monkeypatch.setattr(lease, "DEAD_SECONDS", 0.1)
            recorded.append(trials_of(server, "slept"))

        at_work(monkeypatch, {3: taken_over})
        said = here(folder, *options(server, "slept"), empty=False, status=1)
        assert said.splitlines()[-1].startswith("lrscale: slept was taken over by another process"), said
        assert trials_of(server, "slept") == recorded[0]
        assert [run.info.status for run in runs_of(server, "slept") if run.data.tags[KIND] == "study"] == ["RUNNING"]
        waiting = [entry["kind"] for path in folder.glob("*.outbox") for entry in Outbox(path).entries()]
        assert "end" not in waiting  # it would end the run of the other


def test_runs_of_others_in_the_same_experiment_are_never_ended(tiny: Path, folder: Path, server: Server) -> None:
    store = Store(server.uri)
    experiment = store.experiment("shared")

    def create(**tags: str) -> str:
        return str(store.client.create_run(experiment, tags=tags).info.run_id)

    program = create(of="another program")
    older = create(**{KIND: "study", PLAN: "another"})
    trial = create(**{KIND: "trial", PARENT: older})
    left = create(**{KIND: "study", PLAN: "another", HOLDER: "somebody, killed"})
    half = create(**{KIND: "trial", PARENT: left})
    here(folder, *options(server, "shared"), empty=False)
    found = {run.info.run_id: run.info.status for run in runs_of(server, "shared")}
    assert {found[run] for run in (program, older, trial)} == {"RUNNING"}
    assert found[left] == "KILLED" and half not in found


def test_first_starts_at_the_same_moment_share_what_they_create(server: Server) -> None:
    stores = [Store(server.uri) for _ in range(4)]
    found: list[str] = []
    threads = [Thread(target=lambda s=s: found.append(s.experiment("created at once"))) for s in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1


def test_a_sweep_of_a_script_is_refused_while_another_runs_it(folder: Path, server: Server) -> None:
    install("numbers", folder)
    (folder / "mlflow.db").unlink()
    files = sorted(folder.rglob("*"))
    more = [f"hydra.sweeper.tracking={server.uri}", "hydra.sweeper.study_name=script", "hydra.sweeper.n_trials=2"]
    with study_lease(server.uri, "script", print):
        said = sweep(folder, *more, status=2)
        assert "runs it since" in said and "Traceback" not in said and sorted(folder.rglob("*")) == files
        assert runs_of(server, "script") == []
    sweep(folder, *more)
    kinds = Counter((run.data.tags[KIND], run.info.status) for run in runs_of(server, "script"))
    assert kinds == {("job", "FINISHED"): 2, ("sweep", "FINISHED"): 1}
    assert not [key for key in Store(server.uri).experiment_tags(runs_of(server, "script")[0].info.experiment_id) if LEASE in key]


def test_records_that_wait_are_not_delivered_into_a_study_that_another_runs(folder: Path, server: Server) -> None:
    outbox = Outbox(folder / "optuna.journal.x.outbox")
    outbox.put({"kind": "end", "uid": "1", "uri": server.uri, "study": "waits", "run": "x"})
    with study_lease(server.uri, "waits", print):
        assert "runs it since" in here(folder, "sync", status=2)
    assert len(outbox.entries()) == 1


def test_only_a_first_start_that_another_was_faster_at_is_repeated() -> None:
    errors = [ValueError("table trials already exists"), ValueError("UNIQUE constraint failed")]

    def create() -> str:
        if errors:
            raise errors.pop(0)
        return "there"

    assert first_start(create) == "there"
    errors[:] = [ValueError("no such host"), ValueError("never asked")]
    with pytest.raises(ValueError, match="no such host"):
        first_start(create)
