"""Names the data sets that a study trains on, for MLflow: the tasks of its cells, with a digest of each."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Dataset, DatasetInput

from lrscale.study.plan import Plan
from lrscale.training.schedules import schedule_in_words


def own_data(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the parameter that says that each seed has a data draw of its own; nothing where all seeds share one."""
    draws = config.get("data_seeds", "shared")
    return {} if draws == "shared" else {"data_seeds": draws}


def own_schedule(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the parameter that says how the lr changes from step to step; nothing where it is constant."""
    words = schedule_in_words(config.get("schedule"))
    return {"schedule": words} if words else {}


def datasets(plan: Plan) -> list[DatasetInput]:
    """Returns the data sets that a plan's cells train on.

    The name and the options of a task identify its data, and the seeds where each has a data draw of its own.
    """
    found = []
    configs = [cell.config for cell in plan.cells]
    tasks = [{**c["task"], **(own_data(c) | {"seeds": c["seeds"]} if own_data(c) else {})} for c in configs]
    for text in dict.fromkeys(json.dumps(task, sort_keys=True) for task in tasks):
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        found.append(DatasetInput(Dataset(json.loads(text)["name"], digest, "code", text, profile=text), []))
    return found
