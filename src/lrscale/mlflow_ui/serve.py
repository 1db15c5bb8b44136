"""Serves MLflow's own UI on this machine, with few processes and no telemetry, and opens it at a study's summary."""

import json
import secrets
import signal
import socket
import sys
import urllib.request
import webbrowser
from contextlib import ExitStack
from typing import TYPE_CHECKING

from lrscale.errors import Refusal
from lrscale.mlflow_ui.saved_views import SUMMARY, link
from lrscale.mlflow_ui.server import LOCAL, Server, free_port, is_free
from lrscale.rules import check, integer
from lrscale.tracking.schema import ASKED, SAVED_VIEW

if TYPE_CHECKING:
    from lrscale.study.records import StudyRecord
    from lrscale.tracking.store import Store

HOST_NAME = "lrscale.localhost"
"""A name for this machine: at 127.0.0.1 MLflow opens an assistant panel over a quarter of the page."""
DASHBOARD_PORT = 8080
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def serve(study: str | None, uri: str, host: str, port: int, browser: bool, optuna: bool) -> None:
    """Serves a store until Ctrl-C, and opens or prints the link to a study's summary.

    A server that already serves this store is used as it is. If the store itself is a server, only the link is printed.

    Raises:
      Refusal: the store or the study is not there, or an option cannot be used.
      Failure: a server did not come up, or has stopped by itself.
    """
    from lrscale.tracking.store import Store

    check("--port", integer(1, 65535), port)
    try:
        socket.getaddrinfo(host, port)
    except OSError:
        raise Refusal(
            f"`--host` must be an address of this machine, got {host}. Leave it out to be reached from here only."
        ) from None
    store = Store.existing(uri)
    record = store.study(study)
    _complete(store, record)
    path = link(record.experiment_id, SUMMARY, charts=True)
    if hasattr(signal, "SIGHUP"):  # sent when the terminal is closed
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    servers: list[Server] = []
    with ExitStack() as running:
        if uri.startswith(("http://", "https://")):
            address, browser = uri.rstrip("/"), browser and optuna
        else:
            found = _serving(store, record, host, port)
            if found is None:
                found = free_port(host, port)
                servers.append(running.enter_context(_mlflow(store.address, host, found)))
            address = f"http://{_name(host, browser)}:{found}"
        if optuna:
            servers.append(running.enter_context(_dashboard(store, record, address + path)))
        _say(address + path, host, servers, browser)
        if servers:
            _join(servers)


def _complete(store: "Store", record: "StudyRecord") -> None:
    """Writes the views of a study that has none: it runs for the first time, or an older version recorded it."""
    if SAVED_VIEW + SUMMARY in store.experiment_tags(record.experiment_id):
        return
    from lrscale.mlflow_ui.publish import show_study
    from lrscale.study.answer import answer

    trials = store.trials(record.experiment_id)
    show_study(store, answer(record, trials), trials, [])


def _serving(store: "Store", record: "StudyRecord", host: str, port: int) -> int | None:
    """Returns the port, from `port` on, where a running server serves this store; None if there is none before a free port.

    A random tag is written to the store, and the server is asked for it: no other store can have it.
    """
    for candidate in range(port, min(port + 100, 65536)):
        if is_free(host, candidate):
            return None
        if _tags(candidate, record) is not None:
            token = secrets.token_hex(8)
            store.tag_experiment(record.experiment_id, {ASKED: token})
            if (_tags(candidate, record) or {}).get(ASKED) == token:
                return candidate
    return None


def _tags(port: int, record: "StudyRecord") -> dict[str, str] | None:
    """Returns a server's tags of the study's experiment; None if it has no such experiment or is no MLflow server."""
    url = f"http://{LOCAL}:{port}/api/2.0/mlflow/experiments/get?experiment_id={record.experiment_id}"
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            found = json.load(answer)["experiment"]
        return {tag["key"]: tag["value"] for tag in found.get("tags", [])} if found["name"] == record.plan.study else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mlflow(uri: str, host: str, port: int) -> Server:
    print(f"starting MLflow's server on {host}:{port}", flush=True)
    if host != LOCAL:
        print(f"whoever reaches {host}:{port} can read, change and delete all that is in {uri}: there is no password", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--host", host, "--port", str(port), "--allowed-hosts", ",".join(_allowed(host, port))]
    command += ["--cors-allowed-origins", f"http://{HOST_NAME}:{port}"]
    return Server("MLflow's server", command, QUIET, f"http://{LOCAL if host == '0.0.0.0' else host}:{port}/health")


def _allowed(host: str, port: int) -> list[str]:
    """Returns the host names that a request may use: a web page elsewhere cannot reach the server by another name."""
    names = [LOCAL, "localhost", HOST_NAME] + ([] if host == LOCAL else [host, socket.gethostname(), socket.getfqdn()])
    return [f"{name}:{port}" for name in dict.fromkeys(names)]


def _name(host: str, browser: bool) -> str:
    """Returns the host of the link: HOST_NAME if it leads to this machine, which it does in all browsers but Safari."""
    if host != LOCAL:
        return socket.gethostname() if host == "0.0.0.0" else host
    try:
        return HOST_NAME if socket.gethostbyname(HOST_NAME) == LOCAL else LOCAL
    except OSError:
        return HOST_NAME if browser and sys.platform != "darwin" else LOCAL


def _dashboard(store: "Store", record: "StudyRecord", mlflow: str) -> Server:
    from lrscale.mlflow_ui.optuna_dashboard import command, leave_notes

    storage = record.storage or "optuna.journal"
    leave_notes(storage, record, mlflow)
    port = free_port(LOCAL, DASHBOARD_PORT)
    return Server("optuna-dashboard", command(storage, port), {}, f"http://{LOCAL}:{port}/dashboard/")


def _say(address: str, host: str, servers: list[Server], browser: bool) -> None:
    print(address, flush=True)
    links = [address, *(server.address for server in servers if server.name == "optuna-dashboard")]
    for dashboard in links[1:]:
        print(f"{dashboard} (Optuna)", flush=True)
    if browser:
        for each in links:
            webbrowser.open(each)
    if servers:
        print("Ctrl-C stops the server.", flush=True)
    elif not address.startswith("https"):
        print("It is served already.", flush=True)


def _join(servers: list[Server]) -> None:
    """Waits for Ctrl-C or SIGTERM."""
    try:
        servers[0].join()
    except KeyboardInterrupt:
        print("stopped", flush=True)
