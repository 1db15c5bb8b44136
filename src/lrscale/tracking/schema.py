"""Lists every name under which records stand in MLflow: tags, parameters and artifacts, and the tags that MLflow itself reads."""

import hashlib
import json
from collections.abc import Mapping
from uuid import NAMESPACE_OID, uuid5

KIND = "lrscale.kind"
"""Tag of a run: its kind, which is `study`, `trial`, `crash`, `single` or `audit`; `sweep` or `job` where a training script
trains."""
AUDITS = "audits"
"""The experiment that holds the audits of training steps."""
AUDIT_VERDICT = "lrscale.verdict"
"""Tag of an audit: `invariant`, `not invariant` or `not audited`."""
AUDIT_KINDS = "lrscale.kinds"
"""Tag of an audit: the kinds of its findings, with commas."""
AUDIT_SOURCE = "lrscale.source_sha256"
"""Tag of an audit: the sha256 of the file that holds the step."""
PLAN = "lrscale.plan"
"""Tag of a study: the id of its plan."""
EXECUTED = "lrscale.executed"
"""Tag of a study: the time when it was last started."""
HOLDER = "lrscale.holder"
"""Tag of a study or a sweep: who started it last, as user@host, process and folder."""
LEASE = "lrscale.lease."
"""The tags of an experiment that hold the claims of processes on its study have names that start with this."""
SECONDS = "lrscale.seconds"
"""Tag of a study: the seconds that its rounds took, summed over all executions that ended."""
CELL = "lrscale.cell"
"""Tag of a trial: the id of its cell."""
NUMBER = "lrscale.trial"
"""Tag of a trial: its number in its cell."""
ROUND = "lrscale.round"
"""Tag of a trial: the number of the first trial of its round."""
ASKED_UNDER = "lrscale.settings"
"""Tag of a trial: what it was asked under, as JSON: sampler, n_trials, intervals and versions."""
SAME_RUN = "lrscale.same_run"
"""Tag of a trial that was not trained for itself: the exact label of the trial that was, and is the same run."""
PARAMS = "lrscale.params"
"""Tag of a trial: its tuned hyperparameters, exact, as JSON."""
OBJECTIVES = "lrscale.objectives"
"""Tag of a trial: the objective of each seed, exact, as JSON."""
DIVERGED = "lrscale.diverged"
"""Tag of a trial: 1 for each seed that diverged and 0 for each other seed, as JSON."""
OUTCOME = "lrscale.outcome"
"""Tag of a trial with a run that diverged: how many did. It is a column of the views."""
QUANTITIES = "lrscale.quantities"
"""Tag of a probe's trial: the measured quantities, as JSON."""
CHECKSUM = "lrscale.checksum"
"""Tag of a trial: a hash of the tags that hold what was measured. Older trials have none."""
CONFIG = "lrscale.config"
"""Tag of a trial or a single training: its config, as JSON."""
JOB = "lrscale.job"
"""Tag of a job of a script: its number, which is also that of its output folder."""
JOB_KEY = "lrscale.job_key"
"""Tag of a job of a script: what it trains. Jobs with equal keys train the same."""
JOB_FILE = "lrscale.job_file"
"""Tag of a job of a script: the file in which the job leaves what it returned."""
RETURNED = "lrscale.returned"
"""Tag of a job of a script that ended well: its objective, exact."""
SWEEP_DIR = "lrscale.sweep_dir"
"""Tag of an experiment of a script: Hydra's folder of the sweep."""
COMPUTE = "lrscale.compute"
"""Tag of a single training: the settings of the machine, as JSON."""
MADE_BY = "lrscale.made_by"
"""Tag of a single training: the versions and the machine that made it, as JSON."""
UID = "lrscale.uid"
"""Tag of a run that was kept on disk for a server: a random id. The server is searched for it, to see whether the run arrived."""
IN_SUMMARY = "lrscale.summary"
"""Tag of a run that the study's summary shows: the parent run, or the best trial of a cell."""
NOTE_WRITTEN = "lrscale.note"
"""Tag of a run or an experiment: a hash of the note that was written last. It shows whether a user has edited the note."""
ASKED = "lrscale.asked"
"""Tag of an experiment: a random word. A server that returns it serves this store and no other."""

PARENT, COLOUR, NOTE = "mlflow.parentRunId", "mlflow.runColor", "mlflow.note.content"
HAS_IMAGES = "mlflow.loggedImages"
"""Tags that MLflow's screens read."""
IMAGES = "images"
"""The folder of a run's artifacts in which MLflow's image charts look for images."""


def image_files(key: str) -> tuple[str, str]:
    """Returns the names of the two files of an image in MLflow's folder of images: the image, and the one that charts show."""
    name = f"{key}+step+0+timestamp+0+{uuid5(NAMESPACE_OID, key)}"
    return f"{name}.png", f"{name}+compressed.webp"


def image_key(path: str) -> str:
    """Returns the key of an image, by the path of one of its files among the artifacts of a run."""
    return path.rpartition("/")[2].partition("+")[0]


SAVED_VIEW = "mlflow.sharedViewState."
"""The tags of an experiment that hold a saved view have names that start with this."""

STUDY_PARAMETERS = ("cells", "n_trials", "sampler", "objective")
"""Parameters of a study's run."""
ALWAYS_SHOWN = ("reduction", "batch_size")
NAMED_GROUPS = ("task", "optimizer")
"""Parameters of every trial's run: these keys of its config, and the names of these groups. A study's run has the values of all
its cells. The study's axes and the tuned hyperparameters are shown besides these."""
STUDY_FILE = "study.json"
"""The artifact of a study's run that holds its document."""


def checksum(tags: Mapping[str, str]) -> str:
    """Returns a hash of the tags of a trial that hold what was measured, and where."""
    held = {key: tags.get(key) for key in (CELL, NUMBER, PARAMS, OBJECTIVES, DIVERGED, QUANTITIES)}
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()[:16]
