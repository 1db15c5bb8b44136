"""Wraps MLflow's client: creates its database completely or not at all, and turns its errors into a Failure of one line."""

import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # a retry would repeat a call whose reply was lost
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

from alembic.util.exc import CommandError
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine
from mlflow.tracking import MlflowClient
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from lrscale.errors import Failure, Refusal
from lrscale.files import can_write, reason
from lrscale.locks import first_start, remove_leftovers, run_by_others, temporary_name
from lrscale.rules import DATABASE_WAYS, database_url, shown
from lrscale.system import move_new, sqlite_url
from lrscale.tracking.artifacts import FILE_METHODS, Unstored, is_local, missing_driver, place_trouble
from lrscale.tracking.connections import close_databases, use_file
from lrscale.tracking.places import TEMPORARY, bring_along, has_moved, is_writable, refuse_remote, snapshot, sqlite_file
from lrscale.tracking.schema import NOTE, UID
from lrscale.tracking.servers import lacks_experiment, spare_loopback, trouble, why

logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # all that it would log is also raised, and `Client` reports it
ERRORS = (MlflowException, SQLAlchemyError, sqlite3.Error, OSError)
SET_ASIDE = (
    "Where it was, lrscale sync --set-aside sets the waiting records aside, and the command of the study then trains and "
    "records again what the server lacks."
)
WAYS_OUT = {
    "locked": "Another program holds it: once that lets it go, the same command goes on.",
    "full": "Make room, and the same command goes on.",
    "download artifacts": "Bring the folder mlartifacts along, which belongs beside mlflow.db, and optuna.journal to go on.",
    "readonly": "Make it writable, and the same command goes on.",
    "malformed": "Put back an intact copy, or move it away: the trials that Optuna holds are then run again and recorded.",
    "not a database": "Put back an intact copy, or move it away: the trials that Optuna holds are then run again and recorded.",
}


class Emptied(Failure):
    """Raised where a server does not have the experiment or the run to which a record belongs."""


class Client:
    """Has every method of MlflowClient. Each raises Failure, with a text of one line, where MLflow raises an error.

    Those that write or read files of a run raise Unstored where only the store of these files cannot be used, and Refusal
    where a package for it is not installed.
    """

    def __init__(self, uri: str) -> None:
        if (file := sqlite_file(uri)) is not None:
            use_file(file)
        self.uri = uri
        self.plain = MlflowClient(uri)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.plain, name)

        def call(*arguments: Any, **options: Any) -> Any:
            try:
                return method(*arguments, **options)
            except Exception as error:  # each store of files has errors of its own
                if name in FILE_METHODS and not is_local(place := self.place(arguments[0])):
                    raise unstored(self.uri, place, error) from error
                if not isinstance(error, ERRORS):
                    raise
                raise failure(self.uri, error) from error

        return call

    def place(self, run_id: str) -> str:
        """Returns the address of the files of a run. It asks twice: a server that refuses a file may cut the connection."""
        with suppress(*ERRORS):
            return str(self.plain.get_run(run_id).info.artifact_uri)
        return str(self.get_run(run_id).info.artifact_uri)


def failure(uri: str, error: BaseException) -> Failure:
    """Returns the Failure for an error of a store. Its one line says which store, what happened, and the way out."""
    if lacks_experiment(error):
        return Emptied(f"{uri} does not have what is written to ({reason(error)}): was its database replaced? {SET_ASIDE}")
    text = reason(error)
    ways = {**WAYS_OUT, **DATABASE_WAYS}
    way_out = next((way for sign, way in ways.items() if sign in text), "Once it can be, the same command goes on.")
    told = why(uri, error) if uri.startswith("http") else f"{text}. {way_out}"
    return Failure(f"{uri} could not be read or written: {told}")


def unstored(uri: str, place: str, error: BaseException) -> Failure | Refusal:
    """Returns the error for files that could not be written or read, where the store of the runs answers.

    Args:
      uri: the URI of the MLflow store.
      place: the address of the files.
      error: what MLflow or the driver of the store raised; a download does not say why it failed, so the store is asked.
    """
    if (missing := missing_driver(place)) is not None:
        return Refusal(f"{uri} keeps the files of its runs in {place}: {missing}")
    return Unstored(f"{place} did not take or give a file: {place_trouble(place, uri) or reason(error) + '.'}")


def check_place(uri: str, experiment: str) -> None:
    """Raises Refusal where the files of an experiment's runs could not be kept. It is called before anything is written.

    A server puts the files of a new experiment beside those of its first one, unless it was started anew with another root.

    Args:
      uri: the URI of an MLflow store, checked.
      experiment: the name of the experiment.

    Raises:
      Refusal: the store of the files does not answer or does not accept the keys, or its package is not installed.
    """
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        return
    client = open_client(uri)
    known, is_new = client.get_experiment_by_name(experiment), False
    if known is None and file is None:
        with suppress(Failure):  # this user may not read it
            known, is_new = client.get_experiment_by_name("Default"), True
    place = "" if known is None else str(known.artifact_location)
    told = place_trouble(place, client.uri)
    if told is not None and not (is_new and "403" in told):  # those who may not read the files there may make their own
        raise Refusal(f"`tracking.uri` must be a store whose files can be kept, got {uri}, which keeps them in {place}: {told}")


def open_client(uri: str, to_read: bool = False) -> Client:
    """Opens a store; creates an SQLite database where there is none.

    Where its folder was moved, the places of its artifacts are written anew; but not while another process runs a study there
    under another path, as on the host of a container: its files would go astray. A reader then takes a temporary copy.

    Args:
      uri: the URI of the store.
      to_read: whether a database that cannot be written is opened too: as a temporary copy.

    Raises:
      Refusal: the store cannot be opened, or its artifacts lie on another machine.
      Failure: the disk is full.
    """
    check_uri(uri, to_read)
    if uri.startswith("http"):
        return Client(uri)
    file = sqlite_file(uri)
    folder = file.parent if file is not None else Path()
    # MLflow caches stores by URI; with a relative path it would use the old store after a change of folder
    try:
        if file is not None and to_read and not is_writable(file):
            file = snapshot(file)
        address = database_url("tracking.uri", uri) if file is None else sqlite_url(file)
        if file is not None:
            make_database(file)
            check_database(file)
            use_file(file)
        client = first_start(lambda: MlflowClient(address))  # creates the tables of a database that has none
        client.search_experiments(max_results=1)
        if file is not None:
            if has_moved(file, folder) and (study := run_by_others(file)) is not None:
                if not to_read:
                    raise Refusal(
                        f"`tracking.uri` must be reached by one path while a study runs, got {uri}: another process runs {study} "
                        "there under another path. Wait until it ends, or run both where they see one path."
                    )
                file = snapshot(file)
                address = sqlite_url(file)
            bring_along(file, folder)
            refuse_remote(file, uri)
    except (*ERRORS, CommandError) as error:
        text = reason(error)
        if "full" in text or "No space" in text:
            raise failure(uri, error) from error
        way_out = DATABASE_WAYS["locate revision"] if "locate revision" in text else ""
        raise Refusal(f"`tracking.uri` must be an MLflow store that answers, got {uri}: {text}. {way_out}") from None
    return Client(address)


def database_trouble(url: str) -> str | None:
    """Connects to a database server once; MLflow would try for minutes.

    Returns:
      None where it answers; else the reason and the way out, as sentences.
    """
    try:
        engine = create_sqlalchemy_engine(url)
        try:
            engine.connect().close()
        finally:
            engine.dispose()
    except (*ERRORS, ImportError) as error:
        text = reason(error)
        return f"{text}. {next((way for sign, way in DATABASE_WAYS.items() if sign in text), '')}".rstrip()
    return None


def opening(uri: str) -> str:
    """Returns what opening a store does, in words: it makes the database where there is none."""
    file = sqlite_file(uri)
    return "making the database" if file is not None and not file.exists() else "opening the database"


def make_database(file: Path) -> None:
    """Creates MLflow's database where there is none.

    The database is built in another folder and then moved in one step, so a killed process leaves no partial database. What it
    leaves else is removed here.
    """
    remove_leftovers(Path(tempfile.gettempdir()), TEMPORARY)
    remove_leftovers(file.parent, f".{file.name}.")
    if file.exists():
        return
    close_databases()  # else a connection to a removed database of this name would be used again
    with tempfile.TemporaryDirectory(prefix=temporary_name(TEMPORARY)) as folder:
        database, copy = Path(folder) / file.name, file.with_name(temporary_name(f".{file.name}."))
        engine = create_sqlalchemy_engine(sqlite_url(database))
        event.listen(engine, "connect", _write_without_waiting)
        _initialize_tables(engine)
        engine.dispose()
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        try:
            shutil.copyfile(database, copy)
            move_new(copy, file)
        except FileExistsError:  # another process created it first
            pass
        finally:
            copy.unlink(missing_ok=True)


def _write_without_waiting(connection: sqlite3.Connection, _: object) -> None:
    """Lets SQLite not wait for the disk: MLflow makes its tables in some 270 transactions, and here a crash costs nothing."""
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA journal_mode=MEMORY")


def check_database(file: Path) -> None:
    """Raises sqlite3.DatabaseError where a file is no SQLite database, or was cut off."""
    with closing(sqlite3.connect(file)) as connection:
        row = connection.execute("PRAGMA quick_check(1)").fetchone()
    if row != ("ok",):
        raise sqlite3.DatabaseError(f"database disk image is malformed ({str(row[0]).splitlines()[-1]})")


def check_uri(uri: object, to_read: bool = False) -> None:
    """Raises Refusal where a store cannot be at a URI. It is called before anything is written.

    Args:
      uri: the URI of an MLflow store, from a config or the command line.
      to_read: whether a database is only read, so that its folder need not be writable.

    Raises:
      Refusal: the URI has another scheme, the server does not answer, or the folder cannot be used.
    """
    spare_loopback()
    schemes = ("sqlite:///", "http://", "https://", "postgresql", "postgres://", "mysql", "mssql")
    if not isinstance(uri, str) or not uri.startswith(schemes):
        raise Refusal(
            f"`tracking.uri` must start with {', '.join(schemes)}, got {shown(uri)}. Take tracking.uri=sqlite:///mlflow.db."
        )
    file = sqlite_file(uri)
    if file is None:
        url = database_url("tracking.uri", uri)
        if (told := trouble(uri) if uri.startswith("http") else database_trouble(url)) is not None:
            raise Refusal(f"`tracking.uri` must be an MLflow store that answers, got {uri}: {told}")
        return
    if any(mark in str(file) for mark in "?#%"):  # MLflow reads them as parts of a URL, and writes to another place
        raise Refusal(f"`tracking.uri` must lie in a folder without ?, # and % in its path, got {file}. Take another folder.")
    if not file.parent.is_dir():
        raise Refusal(f"`tracking.uri` must lie in a folder that exists, got {uri}. Make {file.parent} first.")
    if to_read:
        return
    if not can_write(file.parent) or (file.exists() and not os.access(file, os.W_OK)):
        raise Refusal(
            f"`tracking.uri` must lie in a folder that can be written, got {uri}. Take another folder than {file.parent}, or "
            "make it and its files writable."
        )


def answers(uri: str) -> bool:
    """Returns whether a server can be used now."""
    return trouble(uri) is None


def deliver(client: Client, entry: Mapping[str, Any], in_doubt: bool = False) -> str:
    """Writes an entry to the store: a whole run, or the end of a run.

    Args:
      client: the store.
      entry: the plain values to write, as `entries.entry` makes them.
      in_doubt: True where an earlier call may have delivered the entry; the store is then searched for it first.

    Returns:
      The id of the MLflow run.

    Raises:
      Failure: the store cannot be read or written.
    """
    if entry["kind"] == "end":
        run_id = str(entry["run"])
        client.log_batch(run_id, tags=[RunTag(*tag) for tag in entry["tags"].items()])
        client.set_terminated(run_id, entry["status"], entry["ended"])
        return run_id
    for run in client.search_runs([entry["experiment"]], f"tags.`{UID}` = '{entry['uid']}'") if in_doubt else []:
        if run.info.status != "RUNNING":
            return str(run.info.run_id)
        client.delete_run(run.info.run_id)
    tags = {**entry["tags"], **({UID: entry["uid"]} if "uid" in entry else {})}
    run_id = str(client.create_run(entry["experiment"], entry["started"], tags, entry["name"]).info.run_id)
    metrics = [Metric(*metric) for metric in entry["metrics"]]
    parameters = [Param(*param) for param in entry["params"].items()]
    for start in range(0, max(1, len(metrics)), 850):
        client.log_batch(run_id, metrics[start : start + 850], parameters if start == 0 else [])
    keep_texts(client, run_id, entry["files"])
    client.set_terminated(run_id, entry["status"], entry["ended"])
    return run_id


def keep_texts(client: Client, run_id: str, texts: Mapping[str, str]) -> None:
    """Keeps texts as files of a run. Where their store does not take them, the run's description has the end of each."""
    for name, text in texts.items():
        try:
            client.log_text(run_id, text, name)
        except Unstored as error:
            client.set_tag(run_id, NOTE, f"{name} could not be stored. {error}\n\n```\n{text[-6000:]}\n```")
