"""Measures what a trial costs in each store, and the reading of 10,000 trials: SQLite, PostgreSQL, and a server on each.

pip install -e '.[test]' && python -m tests.benchmarks.stores      (Debian's package postgresql; 20 minutes or more)
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
import sqlalchemy
import torch
from optuna.distributions import FloatDistribution

from lrscale.rules import database_url
from lrscale.run import job
from lrscale.search.storage import open_storage
from lrscale.spec import Compute
from lrscale.study.plan import with_values
from lrscale.study.records import StudyRecord
from lrscale.tracking.store import Store
from lrscale.training.results import Result
from tests.postgres import postgres
from tests.program import STUDY, TINY, here
from tests.servers import Server

RECORDED, READ = 100, 10_000
LR = "optimizer.lr"
TABLES = ("runs", "tags", "params", "metrics", "latest_metrics")


def milliseconds(started: float, count: int) -> float:
    return 1e3 * (time.perf_counter() - started) / count


def record(name: str, store: Store, like: StudyRecord, result: Result) -> tuple[str, float]:
    """Records trials of a study, and returns the experiment's id and the milliseconds a trial."""
    study = store.start_study(replace(like, plan=replace(like.plan, study=name)))
    started = time.perf_counter()
    for number in range(RECORDED):
        params = {LR: 1e-3 * (1 + number)}
        store.record_trial(study, study.plan.cells[0], number, 0, params, result, time.time(), "#000000")
    return study.experiment_id, milliseconds(started, RECORDED)


def multiply(database: str, experiment: str) -> None:
    """Copies the rows of the recorded trials until there are 10,000: recording them all would take many minutes."""
    engine = sqlalchemy.create_engine(database_url("database", database))
    trials = f"SELECT run_uuid FROM runs WHERE experiment_id = {experiment} AND length(run_uuid) = 32 AND name NOT LIKE 'study %'"
    columns = {table: [column["name"] for column in sqlalchemy.inspect(engine).get_columns(table)] for table in TABLES}
    with engine.begin() as connection:
        for copy in range(1, READ // RECORDED):
            for table, names in columns.items():
                made = ", ".join(f"substr(run_uuid, 5) || '{copy:03d}'" if name == "run_uuid" else name for name in names)
                rows = f"INSERT INTO {table} ({', '.join(names)}) SELECT {made} FROM {table} WHERE run_uuid IN ({trials})"
                connection.execute(sqlalchemy.text(rows))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sqlalchemy.text("ANALYZE"))  # SQLite's by lrscale at a study's end, PostgreSQL's by itself
    engine.dispose()


def read(store: Store, experiment: str) -> float:
    """Returns the seconds in which all trials of an experiment are read."""
    started = time.perf_counter()
    assert len(store.trials(experiment)) == READ
    return time.perf_counter() - started


@contextmanager
def serving(folder: Path, database: str) -> Iterator[str]:
    folder.mkdir()
    server = Server(folder, database=database)
    server.start()
    try:
        yield server.uri
    finally:
        server.kill()


def search(url: str) -> tuple[float, float]:
    """Returns the milliseconds in which Optuna asks for a trial and is told it, and the seconds to read 10,000 trials."""
    study = optuna.create_study(storage=open_storage(url), sampler=optuna.samplers.RandomSampler(seed=0))
    space = {LR: FloatDistribution(1e-3, 1.0, log=True)}
    started = time.perf_counter()
    for _ in range(RECORDED):
        trial = study.ask(space)
        study.tell(trial, trial.params[LR])
    spent = milliseconds(started, RECORDED)
    study.add_trials(study.get_trials(deepcopy=False) * (READ // RECORDED - 1))
    started = time.perf_counter()
    assert len(optuna.load_study(study_name=study.study_name, storage=open_storage(url)).get_trials(deepcopy=False)) == READ
    return spent, time.perf_counter() - started


def measure(kind: str, database: str, folder: Path, like: StudyRecord, result: Result) -> None:
    """Prints the lines of a database of MLflow: reached directly, and through a server on this machine."""
    store = Store(database)
    with serving(folder, database_url("database", database)) as uri:
        for name, reached in ((kind, store), (f"server on {kind}", Store(uri))):
            experiment, spent = record(name, reached, like, result)
            multiply(database, experiment)
            print(f"{name:28s}{spent:12.1f}{read(reached, experiment):18.2f}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with (
        tempfile.TemporaryDirectory() as name,
        tempfile.TemporaryDirectory() as place,
        postgres(Path(place)) as database,
        chdir(name),
    ):
        folder = Path(name)  # without a server MLflow keeps artifacts in the working folder
        here(folder, "run", "-m", *TINY)
        like = Store(f"sqlite:///{folder / 'mlflow.db'}").study(STUDY)
        result, *_ = job.work(with_values(like.plan.cells[0].config, {LR: [0.01]}), Compute())
        heading = f"{'ms a trial':>12s}{'s to read 10,000':>18s}"
        print(f"{'MLflow':28s}{heading}")
        for kind, url in (("SQLite", f"sqlite:///{folder / 'stores.db'}"), ("PostgreSQL", database)):
            measure(kind, url, folder / kind, like, result)
        print(f"{'Optuna':28s}{heading}")
        of_optuna = {"SQLite": f"sqlite:///{folder / 'optuna.db'}", "PostgreSQL": database.replace("/mlflow", "/optuna")}
        for kind, url in {"journal file": str(folder / "stores.journal"), **of_optuna}.items():
            spent, reading = search(url)
            print(f"{kind:28s}{spent:12.1f}{reading:18.2f}", flush=True)


if __name__ == "__main__":
    main()
