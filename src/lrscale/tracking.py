"""MLflow's door: opens a store, writes studies and trials to it in few calls, and reads them back."""

import hashlib
import itertools
import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, Experiment, Metric, Param, Run, RunTag

from lrscale.client import answers, check_uri, deliver, failure, open_client, sqlite_file
from lrscale.document import check_record
from lrscale.notes import trial_note
from lrscale.outbox import Courier, Outbox, deliver_all
from lrscale.places import can_write, held, reason, safe_name
from lrscale.plan import Cell, Plan, trial_label
from lrscale.provenance import source_tags
from lrscale.quantity import Quantity
from lrscale.records import CellRecord, Line, StudyRecord, TrialRecord, WorkRecord
from lrscale.results import Result
from lrscale.rules import Failure, Refusal, printable_all
from lrscale.spec import training
from lrscale.views import KIND, SHOWN

CELL, NUMBER, PARAMS = "lrscale.cell", "lrscale.trial", "lrscale.params"
OBJECTIVES, DIVERGED, CONFIG, PLAN = "lrscale.objectives", "lrscale.diverged", "lrscale.config", "lrscale.plan"
EXECUTED, SECONDS, ROUND, MADE_BY = "lrscale.executed", "lrscale.seconds", "lrscale.round", "lrscale.made_by"
QUANTITIES = "lrscale.quantities"
STUDY_FILE = "study.json"
LOSS_CURVES = ("excess_risk", "train_loss")
"""Curves that are recorded step by step; of the others the last value is. A point costs 0.08 ms."""
PAGE = 1000
"""Runs read at a time."""


class Undelivered(Failure):
    """A study is complete, and some of its records wait on disk for a server."""


class Store:
    """An MLflow store: a database on this machine, or a server."""

    def __init__(self, uri: str) -> None:
        """Opens a store, creating a database that is not there yet.

        Raises:
          Refusal: it cannot be opened.
        """
        self.uri, self.file = uri, sqlite_file(uri)
        self.client = open_client(uri)
        self.address = self.client.uri
        self.keep: Callable[[Mapping[str, Any]], object] = partial(deliver, self.client)
        self.courier: Courier | None = None
        self.seconds_before = 0.0

    @property
    def is_server(self) -> bool:
        return self.uri.startswith("http")

    def keep_on_disk(self, outbox: Path, study: str) -> None:
        """From now on writes a study's trials to disk first, from where they are delivered: for a server that may go away."""
        self.courier = Courier(Outbox(outbox), self.uri, study, partial(deliver, self.client), partial(answers, self.uri))
        self.keep = self.courier.put

    def settle(self, study: str) -> None:
        """Waits until everything is delivered.

        Raises:
          Undelivered: the server is away; says how to go on.
        """
        if self.courier is not None and (waiting := self.courier.settle()):
            raise Undelivered(
                f"the study is complete, but {waiting} of its records wait in {self.courier.outbox.path}: {self.courier.trouble} "
                "When the server is back, the same command delivers them and reports to it; lrscale sync delivers alone."
            )

    def part(self) -> int:
        """Lets go of the server after a moment; returns how many records wait on disk for the next time."""
        if self.courier is None:
            return 0
        waiting = self.courier.settle(1.0)
        self.courier.stop()
        return waiting

    def _execute(self, *statements: str) -> None:
        """Runs statements where the store is an SQLite file."""
        if self.file is not None:
            try:
                with closing(sqlite3.connect(self.file)) as connection:
                    for statement in statements:
                        connection.execute(statement)
                    connection.commit()
            except sqlite3.Error as error:
                raise failure(self.uri, error) from error

    @classmethod
    def existing(cls, uri: str) -> "Store":
        """Opens a store to read from; a database that is not there is refused, not made."""
        check_uri(uri)
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
            raise Refusal(
                f"`--tracking-uri` must be a store that is there, got {uri}. Run a study first: lrscale run -m sweeps=quickstart."
            )
        return cls(uri)

    def experiment(self, name: str) -> str:
        """Returns the id of the experiment of that name, made if need be."""
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage != "active":
                raise Refusal(
                    f"`study_name` must not be that of a deleted experiment, got {name}. Restore it or take another name."
                )
            return str(found.experiment_id)
        location = (self.file.parent / "mlartifacts" / safe_name(name)).as_uri() if self.file is not None else None
        return str(self.client.create_experiment(name, artifact_location=location))

    def start_study(self, plan: Plan, document: Mapping[str, Any]) -> StudyRecord:
        """Opens the parent run of a plan, the one of an earlier execution if there is one."""
        experiment = self.experiment(plan.study)
        found = self.client.search_runs([experiment], f"tags.`{PLAN}` = '{plan.id}'", max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
            self.client.update_run(run_id, status="RUNNING")
            self.client.set_tag(run_id, EXECUTED, _now())
        else:
            tags = {KIND: "study", PLAN: plan.id, EXECUTED: _now(), **source_tags()}
            run_id = str(self.client.create_run(experiment, tags=tags, run_name=f"study {plan.study}").info.run_id)
        params = [
            Param("cells", str(len(plan.cells))),
            Param("n_trials", str(plan.n_trials)),
            Param("sampler", str(plan.sampler["name"])),
            Param("objective", document["objective"]),
        ]
        self.client.log_batch(run_id, params=params)
        self.client.log_inputs(run_id, _datasets(plan))
        self.client.log_dict(run_id, dict(document), STUDY_FILE)
        run = self.client.get_run(run_id)
        self.seconds_before = float(run.data.tags.get(SECONDS, 0))
        return self._study_record(run, document)

    def finish_study(self, run_id: str, status: str, seconds: float = 0.0) -> None:
        """Ends a parent run: FINISHED, FAILED or KILLED; its rounds took so many seconds more."""
        spent = {SECONDS: f"{self.seconds_before + seconds:.1f}"} if seconds else {}
        self.keep({"kind": "end", "run": run_id, "status": status, "ended": _ms(), "tags": spent})
        # sorting 10,000 runs by a metric takes SQLite 9 s without these statistics and 0.2 s with them; they take 0.02 s
        self._execute("PRAGMA analysis_limit=400", "ANALYZE")

    def record_trial(
        self,
        study: StudyRecord,
        cell: Cell,
        number: int,
        together: int,
        params: Mapping[str, float],
        result: Result,
        started: float,
        colour: str,
    ) -> None:
        """Writes a finished trial as a child run, in three calls; `together` is the first trial of its round."""
        tags = {
            KIND: "trial",
            "mlflow.parentRunId": study.run_id,
            "mlflow.runColor": colour,
            CELL: cell.id,
            NUMBER: str(number),
            ROUND: str(together),
            PARAMS: json.dumps(dict(params)),
            "mlflow.note.content": trial_note(study.study, cell, number, params, result),
        }
        always = {key: cell.config[key] for key in ("reduction", "batch_size")}
        scientific = {key: str(value) for key, value in {**always, **cell.scientific}.items()}
        name = trial_label(cell.label, params)
        self.keep(_trial_entry(study.experiment_id, name, tags, cell.config, scientific, params, result, int(started * 1000)))

    def record_failure(self, study: StudyRecord, cell: Cell, params: Mapping[str, float], traceback: str) -> None:
        """Writes a crashed trial as a failed child run, its traceback in an artifact."""
        tags = {KIND: "crash", CELL: cell.id, "mlflow.parentRunId": study.run_id, **source_tags()}
        name, files = trial_label(cell.label, params), {"traceback.txt": traceback}
        self.keep(_entry(study.experiment_id, name, tags, status="FAILED", files=files))

    def record_single(
        self,
        experiment: str,
        name: str,
        config: Mapping[str, Any],
        params: Mapping[str, float],
        result: Result,
        made_by: Mapping[str, str],
    ) -> str:
        """Writes a training that belongs to no study as one run, and returns its id."""
        groups = {group: config[group]["name"] for group in ("task", "optimizer")}
        named = {key: str(config[key]) for key in ("reduction", "batch_size", "accumulation", "objective", "seeds")}
        tags = {KIND: "single", PARAMS: json.dumps(dict(params)), MADE_BY: json.dumps(dict(made_by))}
        entry = _trial_entry(self.experiment(experiment), name, tags, config, {**groups, **named}, params, result, None)
        return deliver(self.client, entry)

    def drop_unfinished(self, experiment: str, but: str) -> None:
        """Deletes trials that were being written when their process was killed, and ends the studies it left running."""
        for run in self._runs(experiment, "attributes.status = 'RUNNING'"):
            if run.data.tags.get(KIND) in ("trial", "crash"):
                self.client.delete_run(run.info.run_id)
            elif run.info.run_id != but:
                self.client.set_terminated(run.info.run_id, "KILLED")

    def trials(self, experiment: str) -> list[TrialRecord]:
        """Reads an experiment's finished trials."""
        found = []
        for run in self._runs(experiment, f"tags.`{KIND}` = 'trial' and attributes.status = 'FINISHED'"):
            with _named(self.uri, run.info.run_id):
                found.append(_trial(run))
        return found

    def last_trial(self, experiment: str) -> float | None:
        """When an experiment's last trial was recorded, in seconds; None if there is none."""
        query = f"tags.`{KIND}` = 'trial' and attributes.status = 'FINISHED'"
        found = self.client.search_runs([experiment], query, max_results=1, order_by=["attributes.end_time DESC"])
        return found[0].info.end_time / 1000 if found else None

    def study(self, name: str | None) -> StudyRecord:
        """Reads the latest execution of a study, or of any study if no name is given.

        Raises:
          Refusal: there is none.
        """
        experiments = {e.experiment_id: e.name for e in self._experiments()}
        wanted = [i for i, n in experiments.items() if name in (None, n)]
        latest = [f"tags.`{EXECUTED}` DESC"]
        runs = self.client.search_runs(wanted, f"tags.`{KIND}` = 'study'", max_results=1, order_by=latest) if wanted else []
        if not runs:
            known = ", ".join(sorted(n for n in experiments.values() if n != "Default")) or "none"
            raise Refusal(
                f"`STUDY` must be a study in {self.uri}, got {name or 'no name'}. There: {known}. "
                "Run one with lrscale run -m sweeps=quickstart."
            )
        run = runs[0]
        return self.study_of(run.info.run_id)

    def study_of(self, run_id: str) -> StudyRecord:
        """Reads a study by its run."""
        return self._study_record(self.client.get_run(run_id), self.load_json(run_id, STUDY_FILE))

    def kind(self, run_id: str) -> str:
        """What a run records: a study, a trial or a single training.

        Raises:
          Refusal: there is no such run, or it records something else.
        """
        try:
            found = str(self.client.get_run(run_id).data.tags.get(KIND))
        except Failure:
            raise Refusal(f"`--from` must be the id of a run in {self.uri}, got {run_id!r:.60}. lrscale ui shows them.") from None
        if found not in ("study", "trial", "single"):
            raise Refusal(f"`--from` must be the run of a study, a trial or a single training, got one of kind {found:.60}.")
        return found

    def work(self, run_id: str) -> WorkRecord:
        """Reads a trial with its round, or a single training."""
        run = self.client.get_run(run_id)
        tags, config = run.data.tags, json.loads(run.data.tags[CONFIG])
        if tags[KIND] == "single":
            alone = _trial(run)
            return WorkRecord(config, (alone.params,), 0, alone, True, json.loads(tags[MADE_BY]))
        asked = _trial(run)
        every = [t for t in self.trials(run.info.experiment_id) if t.cell == asked.cell and t.together == asked.together]
        each = sorted(every if asked.together is not None else [asked], key=lambda trial: trial.number)
        made_by = self.load_json(tags["mlflow.parentRunId"], STUDY_FILE)["made_by"]
        place = [trial.run_id for trial in each].index(run_id)
        return WorkRecord(config, tuple(t.params for t in each), place, asked, asked.together is not None, made_by)

    def line(self, run_id: str, name: str) -> Line:
        """Reads a trial's curve."""
        points = sorted((m.step, m.value) for m in self.client.get_metric_history(run_id, name))
        return Line(tuple(step for step, _ in points), tuple(value for _, value in points))

    def load_json(self, run_id: str, path: str) -> Any:
        """Reads a JSON artifact."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            text = Path(self.client.download_artifacts(run_id, path, folder)).read_bytes()
            with _named(self.uri, run_id):
                return json.loads(text)

    def files(self, run_id: str, folder: str) -> list[str]:
        """Paths of the artifacts in a folder of a run's."""
        return [str(file.path) for file in self.client.list_artifacts(run_id, folder)]

    def writable(self) -> bool:
        """Whether the store can be written; of a server it is assumed."""
        return self.file is None or (os.access(self.file, os.W_OK) and can_write(self.file.parent))

    def keep_files(self, run_id: str, folder: Path, metrics: Mapping[str, float]) -> None:
        """Stores a folder's files, and numbers, on a study's run."""
        self.client.log_artifacts(run_id, str(folder))
        now = int(time.time() * 1000)
        self.client.log_batch(run_id, [Metric(*m, now, 0) for m in metrics.items()])

    def log_points(self, run_id: str, points: Iterable[tuple[str, float, int]]) -> None:
        """Adds points of metrics (name, value, step) to a run; the same point again changes nothing."""
        now = self.client.get_run(run_id).info.start_time
        metrics = [Metric(key, _rounded(value), now, step) for key, value, step in points]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics[start : start + 1000])

    def mark_shown(self, experiment: str, run_ids: Sequence[str]) -> None:
        """Marks the runs that a study's summary shows, and these alone."""
        marked = {run.info.run_id for run in self._runs(experiment, f"tags.`{SHOWN}` = 'yes'")}
        for run_id in marked - set(run_ids):
            self.client.delete_tag(run_id, SHOWN)
        for run_id in [run_id for run_id in run_ids if run_id not in marked]:
            self.client.set_tag(run_id, SHOWN, "yes")

    def run_tags(self, run_id: str) -> dict[str, str]:
        return dict(self.client.get_run(run_id).data.tags)

    def tag_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        self.client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()])

    def experiment_tags(self, experiment: str) -> dict[str, str]:
        return dict(self.client.get_experiment(experiment).tags)

    def tag_experiment(self, experiment: str, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self.client.set_experiment_tag(experiment, key, value)

    def _experiments(self) -> Iterator[Experiment]:
        token = None
        while True:
            page = self.client.search_experiments(max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _runs(self, experiment: str, query: str) -> Iterator[Run]:
        token = None
        while True:
            page = self.client.search_runs([experiment], query, max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _study_record(self, run: Run, document: Mapping[str, Any]) -> StudyRecord:
        with _named(self.uri, run.info.run_id):
            check_record(document)
            return self._checked_record(run, printable_all(document))

    def _checked_record(self, run: Run, document: Mapping[str, Any]) -> StudyRecord:
        return StudyRecord(
            run_id=run.info.run_id,
            experiment_id=run.info.experiment_id,
            study=document["study"],
            question=document["question"],
            objective=document["objective"],
            n_trials=document["n_trials"],
            ranges={name: (low, high) for name, (low, high) in document["ranges"].items()},
            claims=tuple(document["claims"]),
            cells=tuple(CellRecord(c["id"], c["label"], c["scientific"], c["config"]) for c in document["cells"]),
            made_by=document["made_by"],
            command=document["command"],
            status=run.info.status,
            seconds=float(run.data.tags.get(SECONDS, 0)),
        )


def _datasets(plan: Plan) -> list[DatasetInput]:
    """The data that a plan's cells train on: the name and the options of a task say all of it."""
    found = []
    for text in dict.fromkeys(json.dumps(cell.config["task"], sort_keys=True) for cell in plan.cells):
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        found.append(DatasetInput(Dataset(json.loads(text)["name"], digest, "code", text, profile=text), []))
    return found


def summary(params: Mapping[str, float], result: Result) -> dict[str, float]:
    """The numbers of a trial that MLflow's table and charts show: finite ones only, as its screens take no inf."""
    if result.quantities:
        expected = {f"{q.name}.expected": q.expected for q in result.quantities if q.expected is not None}
        return {q.name: q.value for q in result.quantities} | expected
    worst = math.log10(max(10 * abs(result.curves["train_loss"][0]), 1e-300))
    objective = result.objective
    shown = {f"log10_{key.rpartition('.')[2]}": math.log10(value) for key, value in params.items() if value > 0}
    shown |= {"diverged": float(sum(result.diverged)), "seeds": float(len(result.objectives))}
    if math.isfinite(objective):
        shown["objective"] = objective
        shown["log10_objective"] = min(math.log10(max(objective, 1e-300)), worst)
    else:
        shown["log10_objective"] = worst
    return shown | {f"final/{name}": value for name, value in result.ends.items()}


def _trial_entry(
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    config: Mapping[str, Any],
    shown: Mapping[str, str],
    params: Mapping[str, float],
    result: Result,
    started: int | None,
) -> dict[str, Any]:
    """The record of one run: what it is in its tags, what varies in its parameters, loss curves and numbers as metrics."""
    tags = {
        **tags,
        **source_tags(),
        OBJECTIVES: json.dumps(result.objectives),
        DIVERGED: json.dumps([int(d) for d in result.diverged]),
        CONFIG: json.dumps(dict(config)),
    }
    if result.quantities:
        tags[QUANTITIES] = json.dumps([asdict(quantity) for quantity in result.quantities])
    now = _ms()
    metrics = [(key, _rounded(value), now, 0) for key, value in summary(params, result).items()]
    metrics += [("steps", training(config).steps, now, 0)]
    metrics += [("examples", *at) for at in zip(result.examples, itertools.repeat(now), result.steps, strict=False)]
    metrics += [("trial", int(tags[NUMBER]), now, 0)] if NUMBER in tags else []
    metrics += [("objective_by_seed", o, now, i) for i, o in enumerate(result.objectives) if math.isfinite(o)]
    for key in LOSS_CURVES:
        points = zip(result.steps, result.curves.get(key, ()), strict=False)
        metrics += [(key, value, now, step) for step, value in points if math.isfinite(value)]
    tuned = {key.rpartition(".")[2]: f"{value:.4g}" for key, value in params.items()}
    return _entry(experiment, name, tags, started, {**shown, **tuned}, metrics)


def _entry(
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    started: int | None = None,
    params: Mapping[str, str] | None = None,
    metrics: Sequence[tuple[str, float, int, int]] = (),
    status: str = "FINISHED",
    files: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A run as plain values: what `client.deliver` writes, now or from disk. Times are in milliseconds."""
    return {
        "kind": "run",
        "experiment": experiment,
        "name": name,
        "tags": dict(tags),
        "started": _ms() if started is None else started,
        "ended": _ms(),
        "params": dict(params or {}),
        "metrics": list(metrics),
        "files": dict(files or {}),
        "status": status,
    }


@contextmanager
def _named(uri: str, run_id: str) -> Iterator[None]:
    """Names the run where a record in it is damaged, or not one of ours.

    Raises:
      Refusal: it is.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        text = reason(error) if isinstance(error, Refusal) else f"{type(error).__name__} {reason(error)}"
        raise Refusal(
            f"run {run_id} in {uri} is damaged, or a newer lrscale's: {text.rstrip('.')}. Put back a whole copy, or delete it."
        ) from None


def _trial(run: Run) -> TrialRecord:
    tags = run.data.tags
    return TrialRecord(
        run_id=run.info.run_id,
        cell=tags.get(CELL, ""),
        number=int(tags.get(NUMBER, 0)),
        params={str(name): float(value) for name, value in json.loads(tags[PARAMS]).items()},
        together=int(tags[ROUND]) if ROUND in tags else None,
        objectives=tuple(float(objective) for objective in json.loads(tags[OBJECTIVES])),
        diverged=tuple(bool(d) for d in json.loads(tags[DIVERGED])),
        quantities=tuple(Quantity(**fields) for fields in json.loads(tags.get(QUANTITIES, "[]"))),
    )


def _rounded(value: float) -> float:
    """Four significant digits, for numbers that are read in a table; exact values are in the tags."""
    return float(f"{value:.4g}")


def _ms() -> int:
    return int(time.time() * 1000)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def sync(folder: Path) -> list[tuple[Outbox, int, str]]:
    """Delivers what waits in a folder for servers: outboxes, how many records each held, and their study.

    Raises:
      Failure: a server is away.
      Refusal: nothing waits, or a study that is being run delivers it.
    """
    outboxes = [Outbox(path) for path in sorted(folder.glob("*.outbox"))]
    if not outboxes:
        raise Refusal(
            f"`FOLDER` must hold records that wait for a server (*.outbox), got {folder.resolve()}: nothing waits there."
        )
    delivered = []
    for outbox in outboxes:
        entries = outbox.entries()
        if not entries:
            outbox.clear()
            continue
        uri, study = str(entries[0]["uri"]), str(entries[0]["study"])
        with held(study, [outbox.path]):
            if not uri.startswith("http") or not answers(uri):
                raise Failure(f"{uri} does not answer: {len(entries)} records go on waiting in {outbox.path}.")
            delivered.append((outbox, deliver_all(outbox, uri, partial(deliver, open_client(uri))), study))
    return delivered
