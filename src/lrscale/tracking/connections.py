"""Connections to SQLite files: a commit does not wait for the disk, and when all are closed, a database is one file."""

import atexit
import sqlite3
from pathlib import Path
from weakref import WeakSet

from sqlalchemy import Connection, Engine, event

_files: set[str] = set()
"""The databases that this process has opened as MLflow stores."""
_engines: WeakSet[Engine] = WeakSet()
"""The engines that reach them."""


def use_file(file: Path) -> None:
    """From now on treats all connections to a database as this module says. Other databases are left alone."""
    _files.add(str(file))


@event.listens_for(Engine, "connect")
def _spare_waiting(connection: object, record: object) -> None:
    """Lets a new connection commit without a wait for the disk, where the database has a write-ahead log.

    A killed process loses nothing by this. A machine that loses its power may lose the last commits, but never a part of one;
    the next start records again the trials that Optuna holds and MLflow lacks.
    """
    if isinstance(connection, sqlite3.Connection):
        file = connection.execute("PRAGMA database_list").fetchone()[2]
        if file in _files and connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            connection.execute("PRAGMA synchronous=NORMAL")


@event.listens_for(Engine, "engine_connect")
def _remember(connection: Connection) -> None:
    if connection.engine.url.database in _files:
        _engines.add(connection.engine)


@atexit.register
def close_databases() -> None:
    """Closes all connections to the databases. SQLite then moves the write-ahead log into a database that nobody else uses.

    A later use opens new connections.
    """
    for engine in list(_engines):
        engine.dispose()
