"""`lrscale ui`: which server is used, and that what it starts is stopped with its children. The pages: test_browser."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from lrscale.errors import Failure
from lrscale.mlflow_ui.saved_views import SUMMARY
from lrscale.mlflow_ui.serve import HOST_NAME, _allowed, _mlflow, _serving
from lrscale.mlflow_ui.server import LOCAL, Server, free_port, is_free, reply_of
from lrscale.tracking import store as tracking
from lrscale.tracking.schema import ASKED, NOTE, SAVED_VIEW
from tests.mlflow_ui.test_study_views import study
from tests.program import TINY, here


class Store:
    """A store in memory."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}

    def tag_experiment(self, experiment: str, tags: dict[str, str]) -> None:
        self.tags |= tags


@pytest.fixture
def servers() -> Iterator[list[tuple[Store, int]]]:
    """Servers of two stores which hold an experiment of the same id and name, on ports one after the other."""
    made: list[HTTPServer] = []
    found = []
    first = free_port(LOCAL, 6400)
    for port in (first, first + 1):
        store = Store()

        class Handler(BaseHTTPRequestHandler):
            tags = store.tags

            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                tags = [{"key": key, "value": value} for key, value in self.tags.items()]
                self.wfile.write(json.dumps({"experiment": {"name": "mine", "tags": tags}}).encode())

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        Handler.tags = store.tags
        made.append(HTTPServer((LOCAL, port), Handler))
        threading.Thread(target=made[-1].serve_forever, daemon=True).start()
        store.tags = Handler.tags
        found.append((store, port))
    yield found
    for server in made:
        server.shutdown()
        server.server_close()


def test_a_server_is_used_again_only_if_it_serves_the_very_store(servers: list[tuple[Store, int]]) -> None:
    (_, first), (ours, second) = servers

    class Ours(Store):
        def tag_experiment(self, experiment: str, tags: dict[str, str]) -> None:
            ours.tags.update(tags)

    served: Any = Ours()
    assert _serving(served, study([1]).experiment_id, study([1]).plan.study, LOCAL, first) == second
    assert ASKED in ours.tags
    other: Any = Store()
    assert _serving(other, study([1]).experiment_id, study([1]).plan.study, LOCAL, first) is None


CHILDREN = """
import subprocess, sys, http.server
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", stubborn])
open("pids", "w").write(f"{child.pid}")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie, which nobody may be there to bury."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_server_is_stopped_with_its_children(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrscale.mlflow_ui.server.STOP_SECONDS", 0.5)
    port = free_port(LOCAL, 6500)
    with Server("it", [sys.executable, "-c", CHILDREN, str(port)], {}, f"http://{LOCAL}:{port}/"):
        child = int((folder / "pids").read_text())
        assert lives(child)
    assert not lives(child)
    assert is_free(LOCAL, port)


def test_a_server_ends_with_its_ui_also_where_that_is_killed(folder: Path) -> None:
    port = free_port(LOCAL, 6500)
    text = "import sys, time\nfrom lrscale.mlflow_ui.server import Server\n"
    text += f"with Server('it', [sys.executable, '-c', sys.argv[1], '{port}'], {{}}, 'http://{LOCAL}:{port}/'):\n"
    text += "    print('up', flush=True)\n    time.sleep(60)\n"
    process = subprocess.Popen([sys.executable, "-c", text, CHILDREN], cwd=folder, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    child = int((folder / "pids").read_text())
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 5
    while lives(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives(child) and is_free(LOCAL, port)


def test_a_server_that_sends_a_byte_now_and_then_holds_nobody_up() -> None:
    def drip() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
            while True:
                connection.sendall(b" ")
                time.sleep(0.05)

    with socket.create_server((LOCAL, 0)) as listener:
        threading.Thread(target=drip, daemon=True).start()
        with pytest.raises(TimeoutError, match="did not answer"):
            reply_of(f"http://{LOCAL}:{listener.getsockname()[1]}/", 0.3)


def test_a_server_that_does_not_come_up_says_why() -> None:
    command = [sys.executable, "-c", "print('no such table'); raise SystemExit(1)"]
    with pytest.raises(Failure, match="no such table"), Server("it", command, {}, f"http://{LOCAL}:1/"):
        pass


def test_pages_elsewhere_cannot_name_the_server() -> None:
    assert _allowed(LOCAL, 5000) == ["127.0.0.1:5000", "localhost:5000", f"{HOST_NAME}:5000"]


def test_listening_elsewhere_says_what_that_exposes(capsys: pytest.CaptureFixture[str]) -> None:
    _mlflow("sqlite:///mlflow.db", LOCAL, 5000)
    assert "password" not in capsys.readouterr().out
    server = _mlflow("sqlite:///mlflow.db", "0.0.0.0", 5000)
    warning = "no password: everyone who can reach 0.0.0.0:5000 can read, change and delete everything in sqlite:///mlflow.db"
    assert warning in capsys.readouterr().out
    assert server.command[server.command.index("--host") + 1] == "0.0.0.0"


def test_a_stop_while_starting_leaves_nothing(folder: Path) -> None:
    text = "import sys, time\nfrom lrscale.mlflow_ui.server import Server\nfrom lrscale.system import stoppable\n"
    text += "with stoppable(), Server('it', [sys.executable, '-c', 'import os, time; "
    text += 'open(\\"pid\\", \\"w\\").write(str(os.getpid())); time.sleep(60)'
    text += "'], {}, 'http://127.0.0.1:1/'): pass\n"
    process = subprocess.Popen([sys.executable, "-c", text], cwd=folder, stderr=subprocess.DEVNULL)
    while not (folder / "pid").is_file() or not (folder / "pid").read_text():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) != 0
    assert not lives(int((folder / "pid").read_text()))


def test_reporting_again_restores_views_and_leaves_an_edited_note_alone(folder: Path) -> None:
    here(folder, "run", "-m", *TINY)
    store = tracking.Store.existing(f"sqlite:///{folder}/mlflow.db")
    study = store.study(None)
    written = store.experiment_tags(study.experiment_id)
    assert "get-artifact?path=figures%2Fobjective_against_lr.png" in written[NOTE]
    store.client.delete_experiment_tag(study.experiment_id, SAVED_VIEW + SUMMARY)
    store.client.set_tag(study.run_id, NOTE, "mine")
    points = {key: len(store.line(study.run_id, key).steps) for key in store.client.get_run(study.run_id).data.metrics}
    here(folder, "report")
    again = store.experiment_tags(study.experiment_id)
    assert SAVED_VIEW + SUMMARY in again and again[NOTE] == written[NOTE] and again.keys() == written.keys()
    assert store.run_tags(study.run_id)[NOTE] == "mine"
    assert points == {key: len(store.line(study.run_id, key).steps) for key in points}
