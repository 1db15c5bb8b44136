"""Starts a server as a child process, waits until it answers, and stops it together with its own child processes."""

import os
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from types import TracebackType

from lrscale.errors import Failure, Refusal
from lrscale.system import end_group, guard_group, start_group

LOCAL = "127.0.0.1"
"""The address at which only this machine can reach a server."""
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens URLs of this machine. It asks no proxy, because a proxy's own 127.0.0.1 is another machine."""
WAIT_SECONDS, STOP_SECONDS = 90, 10
"""How long a server may take to answer first, and how long its processes may take to end after a signal."""


def reply_of(url: str, seconds: float) -> bytes:
    """Returns what a server of this machine answers, of 1 MB at most.

    Raises:
      OSError: it did not answer wholly in time. It may send a byte a second, which no timeout of a socket ends.
    """
    answers: list[bytes] = []

    def ask() -> None:
        with suppress(OSError, ValueError, HTTPException), DIRECT.open(url, timeout=seconds) as response:
            answers.append(response.read(1_000_000))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not answers:
        raise TimeoutError(f"{url} did not answer")
    return answers[0]


class Server:
    """A context in which a server runs, in a process group of its own.

    Raises:
      Failure: the server ended, or did not answer in time, when the context was entered.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], address: str) -> None:
        """Args:
        name: the name of the server in messages.
        command: the program and its arguments.
        environment: environment variables that are set besides those of this process.
        address: a URL that answers when the server is ready.
        """
        self.name, self.command, self.address = name, command, address
        self.environment = {**os.environ, **environment}

    def __enter__(self) -> "Server":
        """Starts the server and waits until it answers."""
        self.output = tempfile.TemporaryFile()
        self.process = start_group(self.command, self.environment, self.output)
        self.guard = guard_group(self.process)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stops the server."""
        self.stop()

    def join(self) -> None:
        """Waits until the server ends by itself. It never returns.

        Raises:
          Failure: the server has ended.
        """
        self.process.wait()
        raise Failure(f"{self.name} has stopped: {self._last_line()}")

    def stop(self) -> None:
        """Stops the server and the processes that it has started."""
        end_group(self.process, STOP_SECONDS)
        if self.guard is not None:
            self.guard.kill()
            self.guard.communicate()
        self.output.close()

    def _wait(self) -> None:
        """Waits until the server answers; raises Failure if it ends before, or takes longer than WAIT_SECONDS."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with DIRECT.open(self.address, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise Failure(f"{self.name} did not answer at {self.address} within {WAIT_SECONDS} s: {self._last_line()}")

    def _last_line(self) -> str:
        """Returns the last line that the server printed."""
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it printed nothing"


def is_free(host: str, port: int) -> bool:
    """Returns whether a server can listen on a port of a host."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(host: str, port: int) -> int:
    """Returns the first port, from `port` on, on which a server can listen.

    Raises:
      Refusal: none of the 100 ports from `port` on is free.
    """
    for candidate in range(port, min(port + 100, 65536)):
        if is_free(host, candidate):
            return candidate
    raise Refusal(f"`--port` must be the first of 100 ports of which one is free, got {port}. Take another port.")
