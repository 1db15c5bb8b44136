"""Gets or creates what several processes may create at the same moment, when each of them is the first."""

import time
from collections.abc import Callable
from typing import TypeVar

from lrscale.errors import Failure, Refusal
from lrscale.tracking.client import Client

T = TypeVar("T")
TRIES, PAUSE_SECONDS = 3, 0.3
"""How often a call is made that another process's call may have disturbed, and the pause between two, in seconds."""


def again(call: Callable[[], T]) -> T:
    """Returns what a call returns. The call may be repeated: done twice it does the same as done once.

    Raises:
      Failure: it has failed TRIES times.
    """
    for _ in range(TRIES - 1):
        try:
            return call()
        except Failure:
            time.sleep(PAUSE_SECONDS)
    return call()


def open_experiment(client: Client, name: str, location: str | None) -> str:
    """Returns the id of the experiment with a name; creates it where there is none.

    Args:
      client: the store.
      name: the name of the experiment.
      location: where its artifacts are kept; None for the store's own place.

    Raises:
      Refusal: the experiment was deleted.
    """

    def get_or_create() -> str:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            return str(client.create_experiment(name, artifact_location=location))
        if experiment.lifecycle_stage != "active":
            raise Refusal(f"`study_name` must not be that of a deleted experiment, got {name}. Restore it or take another name.")
        return str(experiment.experiment_id)

    return again(get_or_create)
