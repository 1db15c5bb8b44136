"""Calls a function of the user in several processes that form a group of torch.distributed."""

import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lrscale.audit.state import is_users
from lrscale.errors import Failure, Refusal, printable
from lrscale.system import can_fork
from lrscale.training.process_group import join_group

LONGEST_SECONDS = 300
"""The longest time that a group of processes may take, in seconds."""


def in_processes(function: Callable[[int], Any], ranks: int, seconds: float = LONGEST_SECONDS) -> list[Any]:
    """Calls a function once in each of several processes, which form a gloo group on this machine.

    The processes are forks of this one, so that the function may be defined in a notebook. All have ended when this function
    returns or raises.

    Args:
      function: is called with the rank of its process while the group exists.
      ranks: the number of processes.
      seconds: the longest time that all may take together.

    Returns:
      What the function returned, [rank].

    Raises:
      Refusal: the function refused something, or the system cannot copy a process.
      Failure: a process failed, or the time ran out.
    """
    if not can_fork():
        raise Refusal(
            f"`ranks` must be 1 where the system cannot copy a process, as on Windows, got {ranks}. "
            "Audit several ranks on Linux or macOS; WSL and containers are Linux."
        )
    import_module("torch._dynamo")  # else each process imports it when it makes its first optimizer, which takes seconds
    context = get_context("fork")
    with tempfile.TemporaryDirectory(prefix="lrscale-audit-") as folder:
        ends: list[Connection] = []
        processes = []
        try:
            for rank in range(ranks):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_alone, args=(function, rank, ranks, Path(folder), theirs, seconds), daemon=True)
                process.start()
                theirs.close()
                ends.append(ours)
                processes.append(process)
            return _answers(ends, seconds)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _answers(ends: list[Connection], seconds: float) -> list[Any]:
    """Returns the answers of all processes; raises the first error."""
    end = time.monotonic() + seconds
    answers: dict[int, Any] = {}
    while len(answers) < len(ends):
        for rank, connection in enumerate(ends):
            if rank in answers or not connection.poll(0.02):
                continue
            try:
                answers[rank] = pickle.loads(connection.recv_bytes())
            except EOFError:
                raise Failure(f"Rank {rank} of {len(ends)} ended without an answer.") from None
            if isinstance(answers[rank], Exception):
                raise answers[rank]
        if time.monotonic() > end:
            late = ", ".join(str(rank) for rank in range(len(ends)) if rank not in answers)
            said = f"Ranks {late} of {len(ends)} gave no answer in {seconds:g} seconds"
            raise Failure(f"{said}: do all ranks make the same backwards, and call the same collectives?")
    return [answers[rank] for rank in range(len(ends))]


def _alone(*arguments: Any) -> None:
    """Calls `_child`, and ends the process without what the parent process does at its end. A Ctrl-C ends it silently."""
    try:
        _child(*arguments)
    except KeyboardInterrupt:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _child(function: Callable[[int], Any], rank: int, ranks: int, folder: Path, connection: Connection, seconds: float) -> None:
    """Calls the function in a new process, and sends its answer or its error."""
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "OMP_NUM_THREADS": 1}
    os.environ.update({name: str(value) for name, value in launched.items()})  # as torchrun sets them
    try:
        join_group(folder / "store", rank, ranks, seconds)
        answer = function(rank)
    except (Refusal, Failure) as error:
        answer = error
    except (Exception, SystemExit) as error:
        answer = Failure(f"Rank {rank} of {ranks} failed: {_told(error)}")
    connection.send_bytes(pickle.dumps(answer))
    time.sleep(0.2 if ranks == 1 else seconds)  # no rank may end while another still needs it; the parent process ends them


def _told(error: BaseException) -> str:
    """Returns an error in one line: its type, its first line, and the last line of the user's code on its way."""
    steps = list(traceback.walk_tb(error.__traceback__))
    users = [(f.f_code.co_filename, line) for f, line in steps if is_users(f.f_globals.get("__name__"), f.f_code.co_filename)]
    place = f" ({Path(users[-1][0]).name}, line {users[-1][1]})" if users else ""
    first = str(error).partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}{f': {printable(first)[:300]}' if first else ''}{place}."
