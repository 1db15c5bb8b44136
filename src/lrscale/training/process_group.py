"""Processes that hold a torch.distributed group together: starts them, waits, and leaves none behind."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from lrscale.errors import Failure

WORK, FOUND = "work.json", "found.json"


def in_ranks(function: Callable[..., Any], shares: Sequence[Any], seconds: float = 120) -> Any:
    """Calls a function once in each of several processes that form a gloo group on this machine.

    Args:
      function: of a module's top level; called with its rank's share while the group stands. It must not keep
        processes, and must give the same for the same shares: what the last calls gave is kept.
      shares: what each rank is given, one a rank, in JSON's types; floats arrive to the last bit.
      seconds: the longest that all may take.

    Returns:
      What the function returned in rank 0, in JSON's types.

    Raises:
      Failure: a process failed or time ran out. Every process has ended by then, as after a return.
    """
    work = {"module": function.__module__, "function": function.__qualname__, "shares": list(shares), "seconds": seconds}
    return json.loads(_found(json.dumps(work), len(shares), seconds))


@lru_cache(maxsize=16)
def _found(work: str, ranks: int, seconds: float) -> str:
    with tempfile.TemporaryDirectory(prefix="lrscale-ranks-") as name:
        folder = Path(name)
        (folder / WORK).write_text(work)
        started: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(ranks):
                with (folder / f"{rank}.log").open("wb") as log:
                    command = [sys.executable, "-m", "lrscale.training.process_group", name, str(rank)]
                    started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
            _wait(started, folder, seconds)
        finally:
            for process in started:
                process.kill()
            for process in started:
                process.wait()
        return (folder / FOUND).read_text()


def _wait(started: Sequence["subprocess.Popen[bytes]"], folder: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while [process for process in started if process.poll() is None]:  # a list: every one is asked
        _check(started, folder)
        if time.monotonic() > end:
            late = [str(rank) for rank, process in enumerate(started) if process.returncode is None]
            raise Failure(f"Ranks {', '.join(late)} of {len(started)} had not ended after {seconds:g} s, and were ended.")
        time.sleep(0.02)
    _check(started, folder)


def _check(started: Sequence["subprocess.Popen[bytes]"], folder: Path) -> None:
    """Raises Failure where a rank failed, and names the one that spoke first: the others then lose their peer."""
    failed = [rank for rank, process in enumerate(started) if process.returncode]
    if failed:
        first = min(failed, key=lambda rank: (folder / f"{rank}.log").stat().st_mtime_ns)
        said = (folder / f"{first}.log").read_text(errors="replace").strip().splitlines() or ["nothing"]
        raise Failure(f"Rank {first} of {len(started)} ended with status {started[first].returncode}: {said[-1]:.200}")


def _rank(folder: Path, rank: int) -> None:
    """One process's part. Where its parent is gone, gloo's own time-out ends it."""
    import torch
    import torch.distributed as group

    work = json.loads((folder / WORK).read_text())
    function, shares, seconds = getattr(import_module(work["module"]), work["function"]), work["shares"], work["seconds"]
    torch.set_num_threads(1)
    for _, interface in socket.if_nameindex():
        if interface.startswith("lo"):  # no other machine takes part
            os.environ["GLOO_SOCKET_IFNAME"] = interface
            break
    group.init_process_group("gloo", f"file://{folder / 'store'}", timedelta(seconds=seconds), world_size=len(shares), rank=rank)
    found = function(shares[rank])
    if rank == 0:
        (folder / FOUND).write_text(json.dumps(found))
    (folder / f"{rank}.done").touch()
    while not all((folder / f"{other}.done").exists() for other in range(len(shares))):
        time.sleep(0.01)  # nobody leaves while another still listens to it


def _leave(folder: Path, rank: int) -> int:
    """Plays one rank and returns its exit status."""
    try:
        _rank(folder, rank)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    status = _leave(Path(sys.argv[1]), int(sys.argv[2]))
    sys.stderr.flush()
    os._exit(status)  # gloo's threads, where the interpreter takes them down, now and then abort the process
