"""PostgreSQL for MLflow's store and for Optuna's: the numbers of SQLite, and no password in any record."""

import gc
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrscale.errors import Refusal
from lrscale.rules import database_url
from lrscale.search.storage import check_storage
from lrscale.tracking.store import Store
from tests.postgres import PASSWORD, postgres
from tests.program import STUDY, TINY, here
from tests.run.test_study import lrs_of
from tests.servers import free_port

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Optuna closes no connection


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collects the connections that Optuna leaves open, while their warnings are no errors."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def optuna_of(url: str) -> str:
    return url.replace("/mlflow", "/optuna")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("postgres")) as address:
        yield address


def test_a_study_in_postgresql_has_the_numbers_of_sqlite(url: str, tiny: Path, folder: Path) -> None:
    stores = [f"tracking.uri={url}", f"tracking.storage={optuna_of(url)}"]
    said = here(folder, "run", "-m", *TINY, *stores, empty=False)
    assert lrs_of(url) == lrs_of(tiny)
    for command in ("status", "report"):
        said += here(folder, command, STUDY, "--tracking-uri", url)
    again = here(folder, "run", "-m", *TINY, *stores, empty=False)
    assert "24 of them in the store already" in again and "lr_sum*" in said
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert PASSWORD not in said + again and not [path for path in written if PASSWORD.encode() in path.read_bytes()]
    assert ":***@" in str(Store.existing(url).study(STUDY).storage)
    dump = subprocess.run(["pg_dump", url], capture_output=True, check=True).stdout
    assert len(dump) > 100_000 and PASSWORD.encode() not in dump


def test_a_database_that_cannot_be_used_says_why(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = url.replace(PASSWORD, "wrong-password")
    nothing = url.rpartition("/")[0] + "/nothing"
    away = url.rpartition(":")[0] + f":{free_port()}/mlflow"
    said = here(folder, "run", "-m", *TINY, f"tracking.uri={url}", f"tracking.storage={url}", status=2, empty=False)
    assert "must not be the database of `tracking.uri`" in said
    check_storage(optuna_of(url), url)  # makes Optuna's tables
    said = here(folder, "status", "--tracking-uri", optuna_of(url), status=2)
    assert "holds the tables of another program" in said and said.count("\n") == 1
    for uri, reason in ((wrong, "PGPASSWORD"), (nothing, "createdb"), (away, "Start the database")):
        for key in ("uri", "storage"):
            said = here(folder, "run", "-m", *TINY, f"tracking.{key}={uri}", status=2, empty=False)
            assert (
                said.count("\n") == 1
                and reason in said
                and list(folder.iterdir()) == []
                and PASSWORD not in said
                and "wrong-password" not in said
            )
    monkeypatch.setenv("PGPASSWORD", PASSWORD)  # a record has the URL without the password
    check_storage(optuna_of(url).replace(PASSWORD, "***"), url)


def test_a_missing_driver_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrscale.rules.find_spec", lambda name: None)
    for key in ("uri", "storage"):
        for scheme in ("postgresql", "postgres", "postgresql+psycopg"):
            said = here(folder, "run", "-m", *TINY, f"tracking.{key}={scheme}://u:secret-word@h/d", status=2)
            assert said.count("\n") == 1 and "pip install 'lrscale[postgres]'" in said and "secret-word" not in said


def test_the_url_names_the_driver() -> None:
    assert database_url("x", "postgresql://u:p@h/d") == database_url("x", "postgres://u:p@h/d") == "postgresql+psycopg://u:p@h/d"
    assert database_url("x", "postgresql+psycopg://u:***@h/d") == "postgresql+psycopg://u@h/d"
    assert database_url("x", "mysql://u:p@h/d") == "mysql://u:p@h/d"
    with pytest.raises(Refusal, match="%20"):
        database_url("x", "postgresql://u:p q@h/d")
