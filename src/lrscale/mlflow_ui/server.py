"""Starts a server as a child process, waits until it answers, and stops it with all its children."""

import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from types import TracebackType

from lrscale.errors import Failure, Refusal

LOCAL = "127.0.0.1"
WAIT_SECONDS, STOP_SECONDS = 90, 10


class Server:
    """A server in a process group of its own, which runs while the context lasts."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], address: str) -> None:
        """Args:
        name: what is started, for messages.
        command: the program and its arguments.
        environment: variables to set in addition to this process's.
        address: an URL that answers when the server is up.
        """
        self.name, self.command, self.address = name, command, address
        self.environment = {**os.environ, **environment}

    def __enter__(self) -> "Server":
        self.output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self.command, env=self.environment, stdout=self.output, stderr=self.output, start_new_session=True
        )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def join(self) -> None:
        """Waits until the server ends by itself, which is an error.

        Raises:
          Failure: it has.
        """
        self.process.wait()
        raise Failure(f"{self.name} has stopped: {self._last_line()}")

    def stop(self) -> None:
        """Stops the process group: by SIGTERM first, then by SIGKILL."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            if self._gone(STOP_SECONDS):
                break
        self.process.wait()
        self.output.close()

    def _gone(self, seconds: float) -> bool:
        """Returns whether the group has no process left, within some seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.process.poll()
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.02)
        return False

    def _wait(self) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self.address, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise Failure(f"{self.name} did not answer at {self.address} within {WAIT_SECONDS} s: {self._last_line()}")

    def _last_line(self) -> str:
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"


def is_free(host: str, port: int) -> bool:
    """Returns whether a server can listen on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(host: str, port: int) -> int:
    """Returns the first port from `port` on where a server can listen.

    Raises:
      Refusal: there is none within 100.
    """
    for candidate in range(port, min(port + 100, 65536)):
        if is_free(host, candidate):
            return candidate
    raise Refusal(f"`--port` must be followed by a free port within 100, got {port}. Take another.")
