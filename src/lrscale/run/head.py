"""Ends a launcher's workers on this machine soon after the process that runs their study was killed."""

import os
import threading
import time
from functools import cache

from lrscale.system import birth, this_machine

STUDY_PROCESS = "LRSCALE_HEAD"
"""The environment variable that tells workers which process runs their study."""
HEAD_SECONDS = 1.0
"""Time between two looks at that process, in seconds."""


def name_of(pid: int) -> str:
    """Returns what workers must know of a process: its machine, its id, and when it started."""
    return f"{this_machine()} {pid} {birth(pid)}"


@cache
def end_with_head(head: str | None = None) -> None:
    """Ends this process soon after the one that runs its study has ended, where both are on one machine (Linux).

    Args:
      head: what `name_of` says of that process; None for what `STUDY_PROCESS` holds.
    """
    named = os.environ.get(STUDY_PROCESS, "") if head is None else head
    machine, pid, born = [*named.split(" "), "", "", ""][:3]
    if machine == this_machine() and pid.isdecimal() and born and int(pid) != os.getpid():
        threading.Thread(target=_watch, args=(int(pid), born), daemon=True, name="head").start()


def _watch(pid: int, born: str) -> None:
    while birth(pid) == born:
        time.sleep(HEAD_SECONDS)
    os._exit(1)
