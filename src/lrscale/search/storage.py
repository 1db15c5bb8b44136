"""Opens Optuna's storage: a journal file, or a database."""

import logging
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import Study

from lrscale.errors import Refusal
from lrscale.files import can_write, reason
from lrscale.locks import first_start
from lrscale.rules import DATABASE_WAYS, database_url
from lrscale.search.journal import Journal
from lrscale.study.plan import Plan


def check_storage(url: str, tracking: str = "") -> None:
    """Raises Refusal where a storage cannot be opened at a URL. It is called before a study writes anything.

    Args:
      url: the URL of Optuna's storage, or the path of its journal.
      tracking: the URI of the MLflow store.

    Raises:
      Refusal: the URL is that of MLflow's database or has another scheme, the database does not answer, or the folder cannot
        be written.
    """
    file = storage_file(url)
    if "://" in url and url == tracking:  # both keep the version of their tables in a table of the same name
        raise Refusal(
            f"`hydra.sweeper.storage` must not be the database of `tracking.uri`, got {url} for both. "
            "Make another database for Optuna, or take a journal file: optuna.journal."
        )
    if file is None:
        if not url.startswith(("postgresql", "postgres://", "mysql")):  # Optuna keeps pickles in redis
            raise Refusal(f"`hydra.sweeper.storage` must be a file, or a postgresql:// or mysql:// database, got {url}.")
        open_storage(url)  # connects to a database server
        return
    folder = file.resolve().parent
    if file.is_dir() or not folder.is_dir() or not can_write(folder):
        raise Refusal(f"`hydra.sweeper.storage` must be a file in a folder that can be written, got {url}. Make {folder} first.")


def storage_file(url: str) -> Path | None:
    """Returns the file of a storage; None where the storage is a database server."""
    path = url.removeprefix("sqlite:///")
    return None if "://" in path else Path(path)


def open_storage(url: str) -> BaseStorage:
    """Opens Optuna's storage.

    Args:
      url: the URL of a database, or the path of a journal file.

    Raises:
      Refusal: the storage cannot be opened.
    """
    try:
        if "://" in url:
            address = database_url("hydra.sweeper.storage", url)
            heard = [logger for name in list(logging.root.manager.loggerDict) if not (logger := logging.getLogger(name)).disabled]
            storage = first_start(lambda: optuna.storages.get_storage(address))
            for logger in heard:
                logger.disabled = False  # making Optuna's tables disables the loggers of all others
            return storage
        return JournalStorage(Journal(url))
    except Refusal:
        raise
    except Exception as error:
        text = reason(error)
        way_out = next((way for sign, way in DATABASE_WAYS.items() if sign in text), "Take a file or a database of its own.")
        raise Refusal(
            f"`hydra.sweeper.storage` must be a journal file or a database that can be opened, got {url}: {text}. {way_out}"
        ) from None


def cell_studies(url: str, plan: Plan) -> list[Study]:
    """Returns the Optuna studies of a plan's cells, as far as a storage has them.

    Args:
      url: the URL of Optuna's storage, or the path of its journal.
      plan: the plan of the study.

    Raises:
      Refusal: the storage cannot be opened.
    """
    storage = open_storage(url)
    known = set(optuna.get_all_study_names(storage))
    names = [plan.optuna_name(cell) for cell in plan.cells]
    return [optuna.load_study(study_name=name, storage=storage) for name in names if name in known]
