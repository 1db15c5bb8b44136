"""MLflow's client: its database made whole or not at all, and its errors told in one line."""

import logging
import os
import shutil
import sqlite3
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # a call whose answer was lost would be made twice
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from lrscale.errors import Failure, Refusal
from lrscale.files import can_write, reason
from lrscale.tracking.schema import UID

logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # what it would log is raised too, and told by `Client`
ERRORS = (MlflowException, SQLAlchemyError, sqlite3.Error, OSError)
WAYS_OUT = {
    "full": "Make room, and the same command goes on.",
    "readonly": "Let it be written again, and the same command goes on.",
    "malformed": "Put back a copy that is whole, or move it away: what Optuna holds is then run again for the record.",
    "not a database": "Put back a copy that is whole, or move it away: what Optuna holds is then run again for the record.",
}


class Client:
    """MlflowClient with every method of it, and a Failure of one line where it raises anything."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.plain = MlflowClient(uri)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.plain, name)

        def told(*given: Any, **named: Any) -> Any:
            try:
                return method(*given, **named)
            except ERRORS as error:
                raise failure(self.uri, error) from error

        return told


def failure(uri: str, error: BaseException) -> Failure:
    """An error of a store in one line: where, what, and the way out."""
    text = reason(error)
    way_out = next((way for sign, way in WAYS_OUT.items() if sign in text), "Once it can, the same command goes on.")
    return Failure(f"{uri} could not be read or written: {text}. {way_out}")


def open_client(uri: str) -> Client:
    """Opens a store, making an SQLite database that is not there yet.

    Raises:
      Refusal: it cannot be opened.
      Failure: there is no room for it.
    """
    check_uri(uri)
    file = sqlite_file(uri)
    try:
        if file is None:
            client = MlflowClient(uri)
        else:
            make_database(file)
            check_database(file)
            # MLflow keeps stores by their URI, and a relative path would outlive a change of folder
            client = MlflowClient(f"sqlite:///{file}")
        client.search_experiments(max_results=1)
    except ERRORS as error:
        text = reason(error)
        if "full" in text or "No space" in text:
            raise failure(uri, error) from error
        raise Refusal(f"`tracking.uri` must be an MLflow store that answers, got {uri}: {text}") from None
    return Client(uri if file is None else f"sqlite:///{file}")


def sqlite_file(uri: str) -> Path | None:
    """The file of a store in SQLite; None for another."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def make_database(file: Path) -> None:
    """Makes MLflow's database where there is none: elsewhere, then in one move, so that a kill leaves none half made."""
    if file.exists():
        return
    with tempfile.TemporaryDirectory(prefix="lrscale-") as folder:
        made, moved = Path(folder) / file.name, file.with_name(f".{file.name}.{os.getpid()}")
        engine = create_sqlalchemy_engine(f"sqlite:///{made}")
        _initialize_tables(engine)
        engine.dispose()
        with closing(sqlite3.connect(made)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        try:
            shutil.copyfile(made, moved)
            os.link(moved, file)
        except FileExistsError:  # another process was quicker
            pass
        finally:
            moved.unlink(missing_ok=True)


def check_database(file: Path) -> None:
    """Raises sqlite3.DatabaseError where an SQLite file is cut off or is none."""
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != ("ok",):
        raise sqlite3.DatabaseError(f"database disk image is malformed ({str(found[0]).splitlines()[-1]})")


def check_uri(uri: object) -> None:
    """Raises Refusal, before anything is written, where a store cannot be at that place."""
    schemes = ("sqlite:///", "http://", "https://", "postgresql", "mysql", "mssql")
    if not isinstance(uri, str) or not uri.startswith(schemes):
        raise Refusal(
            f"`tracking.uri` must start with {', '.join(schemes)}, got {uri!r:.100}. Take tracking.uri=sqlite:///mlflow.db."
        )
    file = sqlite_file(uri)
    if file is None:
        if not answers(uri):
            raise Refusal(f"`tracking.uri` must be an MLflow store that answers, got {uri}. Start it: mlflow server.")
        return
    if any(mark in str(file) for mark in "?#%"):  # MLflow takes them for parts of an URL, and writes elsewhere
        raise Refusal(f"`tracking.uri` must lie in a folder without ?, # and % in its path, got {file}. Take another folder.")
    if not file.parent.is_dir():
        raise Refusal(f"`tracking.uri` must lie in a folder that exists, got {uri}. Make {file.parent} first.")
    if not can_write(file.parent):
        raise Refusal(
            f"`tracking.uri` must lie in a folder that can be written, got {uri}. Take another folder than {file.parent}."
        )


def answers(uri: str) -> bool:
    """Whether a server answers; a database server is asked when it is opened."""
    if not uri.startswith("http"):
        return True
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10):
            return True
    except (OSError, HTTPException):
        return False


def deliver(client: Client, entry: Mapping[str, Any], in_doubt: bool = False) -> str:
    """Writes a run, or the end of one, and returns its id; in doubt it looks first whether that has been done."""
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
    for name, text in entry["files"].items():
        client.log_text(run_id, text, name)
    client.set_terminated(run_id, entry["status"], entry["ended"])
    return run_id
