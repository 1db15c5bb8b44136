"""What lrscale must know of Hydra's launchers: whether their jobs run in other processes, and how they are cancelled."""

from contextlib import suppress

from hydra.plugins.launcher import Launcher

from lrscale.run.setup import Workers


def workers_of(launcher: Launcher) -> Workers:
    """Returns what the workers of a launcher can do. Launchers that are not known here run jobs in other processes.

    Args:
      launcher: the launcher, when it is set up.
    """
    name = type(launcher).__name__
    if name == "BasicLauncher":
        return Workers()
    if name == "JoblibLauncher":
        import joblib

        # with one worker, joblib runs the jobs in this process, where only one can run at a time
        apart = joblib.effective_n_jobs(getattr(launcher, "joblib", {}).get("n_jobs") or 1) > 1
        return Workers(apart=apart, shared=True, cancel=_end_workers_of_joblib)
    return Workers(apart=True)


def _end_workers_of_joblib() -> None:
    """Ends the processes of joblib, with the jobs that run in them. A next call of joblib would start new ones."""
    from joblib.externals.loky import get_reusable_executor

    with suppress(RuntimeError):  # it is ended already
        get_reusable_executor(max_workers=1, reuse=False, kill_workers=True).shutdown(wait=False)
