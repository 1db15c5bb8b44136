import contextlib
import os
import signal
import subprocess
import sys

import pytest

from lrscale.signals import stoppable, uninterrupted


def test_a_closed_terminal_does_not_stop_what_runs_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_that_records_goes_on_where_nobody_reads_its_output() -> None:
    read, write = os.pipe()
    os.close(read)
    code = "import os, sys; from lrscale.commands.cli import _closable; sys.stdout = _closable(sys.stdout); "
    code += "print('dropped'); sys.stdout.flush(); print('done', file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, "done\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_at_once_outside_a_write(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), stoppable():
        os.kill(os.getpid(), number)


def test_a_signal_in_a_write_waits_for_its_end() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), stoppable():
        with uninterrupted():
            with uninterrupted():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("after")
    assert done == ["inner", "outer"]


def test_a_second_signal_does_not_wait() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), stoppable(), uninterrupted():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("first")
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("second")
    assert done == ["first"]
    with stoppable(), uninterrupted():
        done.append("later")
    assert done == ["first", "later"]


def test_a_stop_that_was_swallowed_is_made_up_for_after_the_next_write() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), stoppable():
        with contextlib.suppress(KeyboardInterrupt):  # as Python does in a finalizer
            os.kill(os.getpid(), signal.SIGINT)
        with uninterrupted():
            done.append("next")
        done.append("after")
    assert done == ["next"]


def test_a_write_that_fails_keeps_its_error_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(OSError, match="full"), stoppable(), uninterrupted():
        os.kill(os.getpid(), signal.SIGTERM)
        raise OSError("full")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_work_changes_nothing(number: signal.Signals) -> None:
    late = f"import atexit, os, sys; atexit.register(os.kill, os.getpid(), {int(number)}); "
    late += "from lrscale.commands.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", late, "translate", "--lr", "0.1", "--to-reduction", "sum"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "") and "lr" in ended.stdout
