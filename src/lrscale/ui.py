"""Opens MLflow's own UI: its server, lean and quiet on this machine, and the link to a study."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser

from lrscale.rules import Refusal, check, integer

WAIT_SECONDS = 60


def serve(study: str | None, uri: str, port: int, browser: bool) -> None:
    """Serves a store until Ctrl-C, and opens or prints the link to a study.

    A store that is a server already is not served again: its link is printed.

    Raises:
      Refusal: the store or the study is not there, or the server does not come up.
    """
    from lrscale.tracking import Store

    check("--port", integer(1, 65535), port)
    experiment = Store.existing(uri).study(study).experiment_id
    path = f"/#/experiments/{experiment}/runs?workflowType=machine_learning"
    if uri.startswith(("http://", "https://")):
        _open(uri.rstrip("/") + path, browser)
        return
    free = _free_port(port)
    server = subprocess.Popen(_command(uri, free), env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(server, free)
        _open(f"http://127.0.0.1:{free}{path}", browser)
        print("Ctrl-C stops the server.", flush=True)
        server.wait()
    except KeyboardInterrupt:
        print("stopped")
    finally:
        server.terminate()
        server.wait(10)


def _command(uri: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    return [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]


def _environment() -> dict[str, str]:
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return {**os.environ, **quiet}


def _free_port(port: int) -> int:
    for candidate in range(port, min(port + 100, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return candidate
    raise Refusal(f"`--port` must be followed by a free port within 100, got {port}. Take another.")


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    """Waits until the server answers."""
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    server.terminate()
    raise Refusal(f"MLflow's server must answer on port {port}, got nothing for {WAIT_SECONDS} s. Try mlflow server by hand.")


def _open(link: str, browser: bool) -> None:
    print(link, flush=True)
    if browser:
        webbrowser.open(link)
