"""Runs a function in several processes that form a group of torch.distributed. None of them is left running."""

import json
import os
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
from lrscale.system import file_url, loopback_interface

WORK_FILE, ANSWER_FILE = "work.json", "answer.json"
"""The files that carry the work to the processes, and the answer of rank 0 back."""


def in_ranks(function: Callable[..., Any], shares: Sequence[Any], seconds: float = 120) -> Any:
    """Calls a function once in each of several processes, which form a gloo group on this machine.

    Every process has ended when this function returns or raises.

    Args:
      function: a function at the top level of a module. Each rank calls it with its share while the group exists. It must
        leave no process running. It must return the same for the same shares, because the last answers are cached.
      shares: the argument of each rank, [rank], in JSON's types. Floats keep every bit.
      seconds: the longest time that all ranks together may take.

    Returns:
      The value that the function returned in rank 0, in JSON's types.

    Raises:
      Failure: a process failed, or the time ran out.
    """
    work = {"module": function.__module__, "function": function.__qualname__, "shares": list(shares), "seconds": seconds}
    return json.loads(_answer(json.dumps(work), len(shares), seconds))


@lru_cache(maxsize=16)
def _answer(work: str, ranks: int, seconds: float) -> str:
    """Starts the processes, waits for them, and returns the answer of rank 0 as JSON. The last 16 answers are cached."""
    with tempfile.TemporaryDirectory(prefix="lrscale-ranks-") as name:
        folder = Path(name)
        (folder / WORK_FILE).write_text(work, "utf-8")
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(ranks):
                with (folder / f"{rank}.log").open("wb") as log:
                    command = [sys.executable, "-m", "lrscale.training.process_group", name, str(rank)]
                    processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
            _wait(processes, folder, seconds)
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()
        return (folder / ANSWER_FILE).read_text("utf-8")


def _wait(processes: Sequence["subprocess.Popen[bytes]"], folder: Path, seconds: float) -> None:
    """Waits until all processes have ended. Raises Failure where one fails, or where the time runs out."""
    end = time.monotonic() + seconds
    while [process for process in processes if process.poll() is None]:  # a list, so that every process is polled
        _check(processes, folder)
        if time.monotonic() > end:
            late = [str(rank) for rank, process in enumerate(processes) if process.returncode is None]
            raise Failure(f"Ranks {', '.join(late)} of {len(processes)} had not ended after {seconds:g} s. They were killed.")
        time.sleep(0.02)
    _check(processes, folder)


def _check(processes: Sequence["subprocess.Popen[bytes]"], folder: Path) -> None:
    """Raises Failure where a rank failed.

    The message names the failed rank whose log is the oldest. The others may have failed only because they lost that rank.
    """
    failed = [rank for rank, process in enumerate(processes) if process.returncode]
    if failed:
        first = min(failed, key=lambda rank: (folder / f"{rank}.log").stat().st_mtime_ns)
        lines = (folder / f"{first}.log").read_text("utf-8", "replace").strip().splitlines() or ["its log is empty"]
        raise Failure(f"Rank {first} of {len(processes)} ended with status {processes[first].returncode}: {lines[-1]:.200}")


def join_group(store: Path, rank: int, ranks: int, seconds: float) -> None:
    """Makes this process a rank of a gloo group on this machine, with one thread.

    Args:
      store: the file in which the ranks find each other.
      rank: the number of this process.
      ranks: the number of processes.
      seconds: how long a rank waits for the others.
    """
    import torch
    import torch.distributed as group

    torch.set_num_threads(1)
    if (interface := loopback_interface()) is not None:  # no other machine takes part
        os.environ["GLOO_SOCKET_IFNAME"] = interface
    group.init_process_group("gloo", file_url(store), timedelta(seconds=seconds), world_size=ranks, rank=rank)


def _rank(folder: Path, rank: int) -> None:
    """Does the work of one rank, in its process. If the parent process is gone, the time-out of gloo ends this one."""
    work = json.loads((folder / WORK_FILE).read_text("utf-8"))
    function, shares, seconds = getattr(import_module(work["module"]), work["function"]), work["shares"], work["seconds"]
    join_group(folder / "store", rank, len(shares), seconds)
    answer = function(shares[rank])
    if rank == 0:
        (folder / ANSWER_FILE).write_text(json.dumps(answer), "utf-8")
    (folder / f"{rank}.done").touch()
    while not all((folder / f"{other}.done").exists() for other in range(len(shares))):
        time.sleep(0.01)  # no rank may end while another still needs it


def _exit_status(folder: Path, rank: int) -> int:
    """Does the work of one rank, and returns the exit status of its process."""
    try:
        _rank(folder, rank)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    status = _exit_status(Path(sys.argv[1]), int(sys.argv[2]))
    sys.stderr.flush()
    os._exit(status)  # a normal exit sometimes aborts the process, when the interpreter ends the threads of gloo
