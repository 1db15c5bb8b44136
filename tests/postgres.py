"""A real PostgreSQL that tests start: Debian's package `postgresql`, in a folder, on this machine alone."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import free_port

USER, PASSWORD = "lrscale", "open-sesame-5678"


def _program(name: str) -> str:
    """The newest program of a name: Debian keeps those of a server out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    return str(found[-1]) if found else name


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Starts a server in an empty folder, and yields the URL of its database `mlflow`; there is `optuna` too."""
    user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL does not run as root
    if user is not None:
        shutil.chown(folder, user)
        for parent in folder.parents:  # pytest's own folders are root's alone
            if parent.owner() == "root" and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    secret, port = folder / "password", free_port()
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    initdb = [_program("initdb"), "-D", "data", "-U", USER, f"--pwfile={secret}", "-A", "scram-sha-256", "--no-sync"]
    subprocess.run([*initdb, "-E", "UTF8", "--locale=C"], cwd=folder, user=user, check=True, stdout=subprocess.DEVNULL)
    server = [_program("postgres"), "-D", "data", "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(server, cwd=folder, user=user, stderr=log)
    try:
        _make_databases(port)
        yield f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/mlflow"
    finally:
        process.send_signal(signal.SIGINT)  # ends open connections, and does not wait for them
        process.wait()


def _make_databases(port: int) -> None:
    """Waits until the server answers, and makes the databases."""
    import psycopg

    until = time.monotonic() + 60
    while True:
        try:
            url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"
            with psycopg.connect(url, autocommit=True) as connection:
                for name in ("mlflow", "optuna"):
                    connection.execute(f"create database {name}")
                return
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
