"""Delivers the records that wait on disk for a store, or sets them aside: `lrscale sync`."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from lrscale.errors import MASK, Failure, Refusal, masked_url, without_login
from lrscale.locks import study_lock
from lrscale.tracking.client import deliver
from lrscale.tracking.lease import study_lease
from lrscale.tracking.outbox import Entry, Outbox, deliver_all
from lrscale.tracking.places import sqlite_file
from lrscale.tracking.servers import trouble
from lrscale.tracking.store import Store


def sync(folder: Path) -> list[tuple[Outbox, int, str]]:
    """Delivers the records that wait in a folder for servers that were away, or for a database.

    Args:
      folder: the folder with the outboxes.

    Returns:
      For each outbox that had records: the outbox, the number of records, and the name of their study.

    Raises:
      Failure: a server is away, or has lost what a record belongs to.
      Refusal: nothing waits, the study is running and delivers its own records, or the password of a server is not known.
    """
    delivered = []
    for outbox, entries in _waiting(folder):
        recorded, study = str(entries[0]["uri"]), str(entries[0]["study"])
        with study_lock(study, [outbox.path]):
            uri = _database(recorded, outbox) if sqlite_file(recorded) else _with_login(recorded, outbox)
            told = trouble(uri) if uri.startswith("http") else None
            if told is not None:
                raise Failure(f"{uri} does not answer: {len(entries)} records go on waiting in {outbox.path}. It said: {told}")
            store = Store.existing(uri)
            is_study = store.client.get_experiment_by_name(study) is not None  # and not a single training
            with study_lease(uri, study, print) if is_study else nullcontext():
                delivered.append((outbox, deliver_all(outbox, recorded, partial(deliver, store.client)), study))
    return delivered


def set_aside(folder: Path) -> list[tuple[Path, int, str]]:
    """Renames the outboxes of a folder, so that no command delivers them: for a server that came back empty.

    Args:
      folder: the folder with the outboxes.

    Returns:
      For each outbox that had records: its new path, the number of records, and the name of their study.

    Raises:
      Refusal: nothing waits, or the study is running.
    """
    renamed = []
    for outbox, entries in _waiting(folder):
        study = str(entries[0]["study"])
        with study_lock(study, [outbox.path]):
            renamed.append((outbox.set_aside(), len(entries), study))
    return renamed


def _waiting(folder: Path) -> Iterator[tuple[Outbox, list[Entry]]]:
    """Yields the outboxes of a folder that have records, with these; raises Refusal where there is no outbox."""
    outboxes = [Outbox(path) for path in sorted(folder.glob("*.outbox"))]
    if not outboxes:
        raise Refusal(
            f"`FOLDER` must hold records that wait for a server (*.outbox), got {folder.resolve()}: nothing waits there."
        )
    for outbox in outboxes:
        if entries := outbox.entries():
            yield outbox, entries
        else:
            outbox.clear()


def _database(recorded: str, outbox: Outbox) -> str:
    """Returns the URI of a database that lies beside an outbox.

    Raises:
      Refusal: it lies elsewhere. A folder from somebody else could name any database of this machine.
    """
    name = recorded.removeprefix("sqlite:///")
    if Path(name).name != name:
        raise Refusal(
            f"`FOLDER` must hold the database of its waiting records, got {outbox.path} with records for {name}. "
            "Run the command of the study again: it delivers them."
        )
    return f"sqlite:///{outbox.path.resolve().with_name(name)}"


def _with_login(recorded: str, outbox: Outbox) -> str:
    """Returns the URI of a server whose password was masked in the records, with the password of the environment.

    Raises:
      Refusal: the environment has no login.
    """
    if MASK not in recorded:
        return recorded
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if masked_url(given) == recorded:
        return given
    if os.environ.get("MLFLOW_TRACKING_PASSWORD") or os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return without_login(recorded)
    raise Refusal(
        f"`MLFLOW_TRACKING_URI` must be the server of the waiting records with its password, got none: {outbox.path} holds "
        f"records for {recorded}. Set it, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
    )
