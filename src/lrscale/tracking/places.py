"""Where the artifacts of a database lie: beside it, also after its folder was moved or copied, and never on another machine."""

import atexit
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lrscale.errors import Refusal
from lrscale.files import can_write, safe_name
from lrscale.locks import temporary_name
from lrscale.tracking.schema import KIND

ARTIFACTS = "mlartifacts"
"""The folder beside a database that holds the artifacts of its runs."""
TEMPORARY = "lrscale-"
"""What the names of the temporary folders for databases start with."""
PLACES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
"""The tables of MLflow that name places of artifacts, with the column of each."""
OURS = {
    "experiments": f"experiment_id IN (SELECT experiment_id FROM runs NATURAL JOIN tags WHERE key = '{KIND}')",
    "runs": f"run_uuid IN (SELECT run_uuid FROM tags WHERE key = '{KIND}')",
}
"""Which rows of these tables belong to records of this program."""


def sqlite_file(uri: str) -> Path | None:
    """Returns the file of a store in SQLite, as an absolute path; None for any other store."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def artifact_folder(folder: Path, experiment: str) -> str:
    """Returns the URI of the folder for the artifacts of an experiment, whose database lies in `folder`."""
    return (folder / ARTIFACTS / safe_name(experiment)).as_uri()


UNUSUAL = "NOT ({0} LIKE 'file:///%' AND {0} NOT LIKE 'file:////%')"
"""The condition of a place that may lie elsewhere. SQLite leaves out the usual ones, of which each run has one, in no time."""


def bring_along(database: Path, folder: Path) -> None:
    """Makes a database name the artifacts that lie beside it, where its folder was moved or copied.

    MLflow keeps the absolute place of each artifact, and its server and `mlflow ui` read no other: a relative one would be taken
    from the folder in which they were started. In a copy the place is in the original, which would be written to. So the places
    are written anew, where the former folder is not the same one under another path, such as of a bind mount. Two systems that
    see one store under paths of their own, as a container and its host, write them in turn; see `open_client` for when.

    Args:
      database: the file of the database.
      folder: the folder beside whose files the artifacts lie.
    """
    with closing(sqlite3.connect(database)) as connection:
        for old in _former_folders(connection, folder):
            for start, new in ((old, folder.as_uri()), (_path(old), str(folder))):
                for table, column in PLACES.items():
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (new, len(start) + 1, len(start) + 1, f"{start}/"),
                    )
        connection.commit()


def _former_folders(connection: sqlite3.Connection, folder: Path) -> set[str]:
    """Returns the folders, as URIs, in which a database has been before: where this program put artifacts beside it."""
    former = set()
    for name, place in connection.execute("SELECT name, artifact_location FROM experiments"):
        old = str(place).removesuffix(f"/{ARTIFACTS}/{safe_name(str(name))}")
        if old != place and old.startswith("file:///") and len(old) > len("file:///"):
            former.add(old)
    return {old for old in former if not _is_same(_path(old), folder)}


def _path(uri: str) -> str:
    """Returns the path of a file URI."""
    return unquote(urlsplit(uri).path)


def _is_same(path: str, folder: Path) -> bool:
    """Returns whether a path leads to a folder, here and now."""
    with suppress(OSError, ValueError):
        return os.path.samefile(path, folder)
    return path == str(folder)


def has_moved(database: Path, folder: Path) -> bool:
    """Returns whether `bring_along` would change a database."""
    with closing(sqlite3.connect(database)) as connection:
        return bool(_former_folders(connection, folder))


def refuse_remote(database: Path, uri: str, whole: bool = False) -> None:
    """Raises Refusal where the artifacts of a database on this machine lie elsewhere: who opens it would connect to there.

    Args:
      database: the file of the database.
      uri: the URI of the store, for the message.
      whole: whether the records of other programs count too.
    """
    with closing(sqlite3.connect(database)) as connection:
        for table, column in PLACES.items() if whole else ((table, PLACES[table]) for table in OURS):
            of_ours = "1" if whole else OURS[table]
            for (place,) in connection.execute(
                f"SELECT DISTINCT {column} FROM {table} WHERE {of_ours} AND {UNUSUAL.format(column)}"
            ):
                if place is not None and not _is_local(str(place)):
                    raise Refusal(
                        f"`tracking.uri` must be a database whose artifacts lie on this machine, got {uri} with {place!s:.100}. "
                        "Nothing was opened there. Ask for a store that has its folder mlartifacts, or, where you trust it, take "
                        "MLflow's own server as tracking.uri."
                    )


def _is_local(place: str) -> bool:
    """Returns whether a place of artifacts is a path or a file URI of this machine."""
    parts = urlsplit(place)
    is_path = len(parts.scheme) < 2 and not place.startswith(("//", "\\\\"))  # one letter is a drive of Windows
    return is_path or (parts.scheme == "file" and parts.netloc in ("", "localhost") and not parts.path.startswith("//"))


def is_writable(database: Path) -> bool:
    """Returns whether a database can be written, with the files that SQLite keeps beside it."""
    return os.access(database, os.W_OK) and can_write(database.parent)


@cache
def snapshot(database: Path) -> Path:
    """Returns a copy of a database that cannot be written, in a temporary folder that lives as long as this process.

    MLflow writes to a database that it opens, and SQLite needs files beside it.
    """
    folder = Path(tempfile.mkdtemp(prefix=temporary_name(TEMPORARY)))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / database.name
    try:
        with (
            closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.OperationalError:  # the files that SQLite needs beside it are not there and cannot be made
        for suffix in ("", "-wal"):
            part = database.with_name(database.name + suffix)
            if part.is_file():
                shutil.copyfile(part, copy.with_name(part.name))
    return copy
