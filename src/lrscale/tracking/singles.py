"""Writes trainings that belong to no study, each as one run."""

import json
import os
from collections.abc import Mapping
from typing import Any

from lrscale.errors import Failure, masked_url
from lrscale.spec import Compute
from lrscale.tracking.client import deliver
from lrscale.tracking.datasets import own_data, own_schedule
from lrscale.tracking.delivery import Undelivered
from lrscale.tracking.entries import trial_entry
from lrscale.tracking.outbox import Outbox, outbox_path
from lrscale.tracking.schema import COMPUTE, KIND, MADE_BY, NOTE, PARAMS
from lrscale.tracking.store import Store
from lrscale.tracking.trial_note import single_note
from lrscale.training.results import Result


def record_single(
    store: Store,
    experiment: str,
    name: str,
    config: Mapping[str, Any],
    compute: Compute,
    params: Mapping[str, float],
    result: Result,
    made_by: Mapping[str, str],
    started: int,
) -> str:
    """Writes a training that belongs to no study as one run.

    Args:
      store: the MLflow store.
      experiment: the id of the experiment.
      name: the name of the run.
      config: the config of the training.
      compute: the settings of the machine.
      params: the hyperparameters that the training's name shows, by dotted key.
      result: what the training returned.
      made_by: the versions and the machine.
      started: the start time in milliseconds.

    Returns:
      The id of the run.

    Raises:
      Undelivered: the server is away; the record waits in an outbox of its own, in the working folder.
      Failure: a database cannot be written.
    """
    groups = {group: config[group]["name"] for group in ("task", "optimizer")}
    settings = {key: str(config[key]) for key in ("reduction", "batch_size", "accumulation", "objective", "seeds")}
    settings |= own_data(config) | own_schedule(config)
    tags = {KIND: "single", PARAMS: json.dumps(dict(params)), MADE_BY: json.dumps(dict(made_by))}
    tags[NOTE] = single_note(name, config, params, result)
    tags[COMPUTE] = json.dumps(compute._asdict())
    record = trial_entry(experiment, name, tags, config, {**groups, **settings}, params, result, started)
    record |= {"uid": os.urandom(8).hex(), "uri": masked_url(store.uri), "study": f"training {name}"}
    try:
        return deliver(store.client, record)
    except Failure:
        if not store.is_server:
            raise
        outbox = Outbox(outbox_path(None, f"training-{record['uid']}"))
        outbox.put(record)
        raise Undelivered(
            f"the training is complete, but its record waits in {outbox.path}, because {store.uri} did not accept it. "
            "Once it does, lrscale sync delivers it."
        ) from None
