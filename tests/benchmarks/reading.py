"""Measures the time to read a store of 10,000 trials from many studies.

It times `lrscale report`, and MLflow's list of runs sorted by objective.

pip install -e '.[bench]' && python -m tests.benchmarks.reading      (Chromium: CHROMIUM=path, or playwright install chromium)
"""

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from playwright.sync_api import sync_playwright

from lrscale.tracking.store import Store
from tests.program import lrscale
from tests.servers import Server

TRIALS = 10_000
TIMES = 3
STUDY = "headline-5"
CHANGED = {
    "experiments": ("experiment_id", "name"),
    "runs": ("run_uuid", "experiment_id"),
    "tags": ("run_uuid", "value"),
    "params": ("run_uuid",),
    "metrics": ("run_uuid",),
    "latest_metrics": ("run_uuid",),
}
"""Columns of MLflow's tables that get new values in a copy of a study."""
OF_RUNS = "run_uuid IN (SELECT run_uuid FROM runs WHERE experiment_id = {})"
ORDER = "metrics.`objective`"


def median(action: Callable[[], object]) -> float:
    spent = []
    for _ in range(TIMES):
        started = time.perf_counter()
        action()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def fill(folder: Path) -> int:
    """Runs the headline study and copies its rows as studies headline-1, -2, ... until the store holds 10,000 trials.

    Returns the number of trials.
    """
    lrscale(folder, "run", "-m", "sweeps=headline")
    with closing(sqlite3.connect(folder / "mlflow.db")) as base:
        first, trials = base.execute("SELECT experiment_id, count(*) - 1 FROM runs").fetchone()
        columns = {table: [row[1] for row in base.execute(f"PRAGMA table_info({table})")] for table in CHANGED}
        copies = range(1, -(-TRIALS // trials))
        for copy in copies:
            values = {
                "experiment_id": f"{first + copy}",
                "name": f"name || '-{copy}'",
                "run_uuid": f"substr(run_uuid, 5) || '{copy:04d}'",
                "value": f"CASE key WHEN 'mlflow.parentRunId' THEN substr(value, 5) || '{copy:04d}' ELSE value END",
            }
            for table, changed in CHANGED.items():
                made = ", ".join(values[name] if name in changed else name for name in columns[table])
                rows = f"experiment_id = {first}" if "experiment_id" in columns[table] else OF_RUNS.format(first)
                base.execute(f"INSERT INTO {table} ({', '.join(columns[table])}) SELECT {made} FROM {table} WHERE {rows}")
        base.commit()
    store = Store(f"sqlite:///{folder / 'mlflow.db'}")
    store.finish_study(store.study(f"headline-{copies[-1]}").run_id, "FINISHED")  # as the study itself does when it ends
    return (len(copies) + 1) * int(trials)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    server = Server(folder)
    server.start()
    try:
        yield server.uri
    finally:
        server.kill()


def best(server: str, experiments: list[str]) -> str:
    """Sends the request that MLflow's list of runs sends, and returns the name of the first run."""
    asked = {"experiment_ids": experiments, "order_by": [f"{ORDER} ASC"], "max_results": 100, "run_view_type": "ACTIVE_ONLY"}
    address, header = f"{server}/ajax-api/2.0/mlflow/runs/search", {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(address, json.dumps(asked).encode(), header)) as answer:
        return str(json.load(answer)["runs"][0]["info"]["run_name"])


def pages(server: str, experiment: str) -> list[float]:
    """Returns the seconds from opening the list in a new page of Chromium until the best run is shown, for each page."""
    link = f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning&orderByKey={ORDER}&orderByAsc=true"
    name, spent = best(server, [experiment]), []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context()
        for _ in range(TIMES + 1):
            page = context.new_page()
            started = time.perf_counter()
            page.goto(link)
            page.get_by_text(name, exact=True).first.wait_for(timeout=60_000)
            spent.append(time.perf_counter() - started)
            page.close()
        browser.close()
    return spent


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{fill(folder)} trials of many studies in one database; medians of {TIMES}")
        imports = median(lambda: subprocess.run([sys.executable, "-c", "import torch, mlflow, hydra, optuna"], check=True))
        print(f"{'importing torch, mlflow, hydra, optuna':50s} {imports:6.2f} s")
        for form in ("text", "json", "html"):
            spent = median(partial(lrscale, folder, "report", STUDY, "--format", form))
            print(f"{'lrscale report --format ' + form:50s} {spent:6.2f} s")
        client = Store(f"sqlite:///{folder / 'mlflow.db'}").client
        experiments = {e.name: e.experiment_id for e in client.search_experiments()}
        with serving(folder) as server:
            for of, chosen in (("a study", [experiments[STUDY]]), ("all studies", list(experiments.values()))):
                spent = median(partial(best, server, chosen))
                print(f"{f'runs of {of}, sorted by objective: the call':50s} {spent:6.2f} s")
            first, *later = pages(server, experiments[STUDY])
            print(f"{'the same list as a page in Chromium':50s} {statistics.median(later):6.2f} s, at first {first:.2f} s")


if __name__ == "__main__":
    main()
