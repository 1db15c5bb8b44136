"""Serves MLflow's own UI on this machine, with few processes and without telemetry, and opens it at a study's summary."""

import json
import secrets
import socket
import sys
import webbrowser
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lrscale.errors import Refusal, masked, masked_url, without_login
from lrscale.mlflow_ui.audit_view import AUDIT_VIEW, show_audits
from lrscale.mlflow_ui.saved_views import SUMMARY, link
from lrscale.mlflow_ui.server import LOCAL, Server, free_port, is_free, reply_of
from lrscale.rules import check, integer
from lrscale.tracking.schema import ASKED, AUDITS, SAVED_VIEW

if TYPE_CHECKING:
    from lrscale.study.records import StudyRecord
    from lrscale.tracking.store import Store

HOST_NAME = "lrscale.localhost"
"""The name of this machine in links. At 127.0.0.1 MLflow opens an assistant panel that covers a quarter of the page."""
DASHBOARD_PORT = 8080
"""The first port that is tried for optuna-dashboard."""
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Environment variables of MLflow's server."""


def serve(study: str | None, uri: str, host: str, port: int, browser: bool, optuna: bool, storage: str | None = None) -> None:
    """Serves a store until Ctrl-C is pressed, and prints the link to a study's summary.

    If a server on this machine already serves the store, no other is started. If the store itself is a server, only the
    link is printed.

    Args:
      study: the name of the study; None for the latest, and `audits` for the audits of training steps.
      uri: the URI of the MLflow store.
      host: the address at which the server listens.
      port: the port of the server; if it is taken, the next free port is used.
      browser: whether the link is opened in a browser.
      optuna: whether optuna-dashboard is served too.
      storage: Optuna's storage as the user names it; None for the file that the study's record names.

    Raises:
      Refusal: the store or the study does not exist, or an option cannot be used.
      Failure: a server did not answer in time, or ended by itself.
    """
    from lrscale.tracking.places import refuse_remote
    from lrscale.tracking.store import Store

    check("--port", integer(1, 65535), port)
    try:
        socket.getaddrinfo(host, port)
    except OSError:
        raise Refusal(
            f"`--host` must be an address of this machine, got {host}. Leave it out, and only this machine can reach the UI."
        ) from None
    store = Store.existing(uri)
    record = None
    if study == AUDITS:
        experiment, name = store.audits(), AUDITS
        show_audits(store, experiment)
        path = link(experiment, AUDIT_VIEW, charts=False)
    else:
        record = store.study(study)
        _write_missing_views(store, record)
        experiment, name = record.experiment_id, record.plan.study
        path = link(experiment, SUMMARY, charts=True)
    if optuna and record is None:
        raise Refusal("`--optuna` must be given with a study, got audits. Leave it out: audits tune no lr.")
    if storage is not None and not optuna:
        raise Refusal(f"`--storage` must be given with --optuna, got {masked_url(storage)} alone. Add --optuna.")
    if optuna and record is not None:
        storage = _optuna_storage(record, storage)
    servers: list[Server] = []
    with ExitStack() as stack:
        if uri.startswith(("http://", "https://")):
            address, browser = without_login(uri).rstrip("/"), browser and optuna
        else:
            server_port = _serving(store, experiment, name, host, port)
            if server_port is None:
                server_port = free_port(host, port)
                if store.file is not None:  # the server opens what is linked in a page, also of other programs
                    refuse_remote(Path(store.address.removeprefix("sqlite:///")), uri, whole=True)
                servers.append(stack.enter_context(_mlflow(store.address, host, server_port)))
            address = f"http://{_name(host, browser)}:{server_port}"
        if storage is not None and record is not None:
            servers.append(stack.enter_context(_dashboard(storage, record, address + path)))
        _print_links(address + path, servers, browser)
        if servers:
            _join(servers)


def _write_missing_views(store: "Store", record: "StudyRecord") -> None:
    """Writes the views of a study that has none, because its first execution still runs or an older version recorded it."""
    if SAVED_VIEW + SUMMARY in store.experiment_tags(record.experiment_id):
        return
    from lrscale.mlflow_ui.publish import show_study
    from lrscale.study.answer import answer

    trials = store.trials(record.experiment_id)
    show_study(store, answer(record, trials), trials, [])


def _serving(store: "Store", experiment: str, name: str, host: str, port: int) -> int | None:
    """Returns the port at which a server on this machine already serves this store.

    To test a server, a random tag is written to the store, and the server is asked for the tag. No other store can have it.

    Args:
      store: the store.
      experiment: the id of the experiment that gets the tag.
      name: its name.
      host: the address at which servers listen.
      port: the first port that is searched.

    Returns:
      The port; None if the search reaches a free port, or 100 ports, without such a server.
    """
    for candidate in range(port, min(port + 100, 65536)):
        if is_free(host, candidate):
            return None
        if _tags(candidate, experiment, name) is not None:
            token = secrets.token_hex(8)
            store.tag_experiment(experiment, {ASKED: token})
            if (_tags(candidate, experiment, name) or {}).get(ASKED) == token:
                return candidate
    return None


def _tags(port: int, experiment_id: str, name: str) -> dict[str, str] | None:
    """Returns the tags of an experiment that the server at a port has.

    Returns None if there is no MLflow server, or if it has no such experiment.
    """
    url = f"http://{LOCAL}:{port}/api/2.0/mlflow/experiments/get?experiment_id={experiment_id}"
    try:
        experiment = json.loads(reply_of(url, 3.0))["experiment"]
        is_ours = experiment["name"] == name
        return {tag["key"]: tag["value"] for tag in experiment.get("tags", [])} if is_ours else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mlflow(uri: str, host: str, port: int) -> Server:
    """Returns MLflow's server for a store, not yet started. Prints a warning if other machines can reach it."""
    print(f"starting MLflow's server on {host}:{port}", flush=True)
    if host != LOCAL:
        print(
            f"there is no password: everyone who can reach {host}:{port} can read, change and delete everything in {masked(uri)}",
            flush=True,
        )
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", host, "--port", str(port), "--allowed-hosts", ",".join(_allowed(host, port))]
    command += ["--cors-allowed-origins", f"http://{HOST_NAME}:{port}"]
    environment = {**ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": uri}  # a command line is seen by everyone on the machine
    return Server("MLflow's server", command, environment, f"http://{LOCAL if host == '0.0.0.0' else host}:{port}/health")


def _allowed(host: str, port: int) -> list[str]:
    """Returns the host names, with the port, that a request may use.

    A web page of another host cannot reach the server under a name of its own.
    """
    names = [LOCAL, "localhost", HOST_NAME] + ([] if host == LOCAL else [host, socket.gethostname(), socket.getfqdn()])
    return [f"{name}:{port}" for name in dict.fromkeys(names)]


def _name(host: str, browser: bool) -> str:
    """Returns the host name of the link: HOST_NAME if it leads to this machine. It does so in all browsers but Safari."""
    if host != LOCAL:
        return socket.gethostname() if host == "0.0.0.0" else host
    try:
        return HOST_NAME if socket.gethostbyname(HOST_NAME) == LOCAL else LOCAL
    except OSError:
        return HOST_NAME if browser and sys.platform != "darwin" else LOCAL


def _optuna_storage(record: "StudyRecord", asked: str | None) -> str:
    """Returns Optuna's storage: the one that the user names, or else the file that the record names.

    A record may be a stranger's, so no database server is connected to because a record names it.
    """
    from lrscale.mlflow_ui.optuna_dashboard import check_dashboard
    from lrscale.search.storage import storage_file

    storage = asked or record.storage or "optuna.journal"
    if asked is None and storage_file(storage) is None:
        raise Refusal(
            f"`--optuna` must be told which database server to open, got {masked_url(storage)} from the study's record alone. "
            "Nothing was opened there. If it is yours, add --storage with its URL."
        )
    check_dashboard(storage)
    return storage


def _dashboard(storage: str, record: "StudyRecord", mlflow: str) -> Server:
    """Returns optuna-dashboard for a study, not yet started. Writes notes that link to `mlflow` to its Optuna studies."""
    from lrscale.mlflow_ui.optuna_dashboard import command, leave_notes

    leave_notes(storage, record, mlflow)
    port = free_port(LOCAL, DASHBOARD_PORT)
    return Server("optuna-dashboard", command(storage, port), {}, f"http://{LOCAL}:{port}/dashboard/")


def _print_links(address: str, servers: list[Server], browser: bool) -> None:
    """Prints the links to a study in MLflow and in optuna-dashboard, and opens them in a browser if `browser` is True."""
    print(address, flush=True)
    links = [address, *(server.address for server in servers if server.name == "optuna-dashboard")]
    for dashboard in links[1:]:
        print(f"{dashboard} (Optuna)", flush=True)
    if browser:
        for link_address in links:
            webbrowser.open(link_address)
    if servers:
        print("Ctrl-C stops the server.", flush=True)
    elif not address.startswith("https"):
        print("A server already serves this store.", flush=True)


def _join(servers: list[Server]) -> None:
    """Waits until Ctrl-C or SIGTERM. Raises Failure if the first server ends before."""
    try:
        servers[0].join()
    except KeyboardInterrupt:
        print("stopped", flush=True)
