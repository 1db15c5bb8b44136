"""Configs for tests: what Hydra would compose, from conf/ and the declarations, without Hydra."""

from pathlib import Path
from typing import Any

import yaml

from lrscale.spec import Training
from lrscale.study.config import GROUPS, KEYS, make_training

ROOT = Path(__file__).parent.parent


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats such as 1e-3, as OmegaConf reads them."""


def load(path: str) -> dict[str, Any]:
    return yaml.load((ROOT / "conf" / path).read_text(), _Loader)


def config(
    *, task: str = "d2l", optimizer: str = "sgd", schedule: str = "constant", budget: str = "epochs", **changes: Any
) -> dict[str, Any]:
    """A composed config; changes are top-level values, or options of a group such as `optimizer__lr=0.1`."""
    made = load("config.yaml") | GROUPS["task"].config(task) | GROUPS["optimizer"].config(optimizer)
    made |= GROUPS["schedule"].config(schedule)
    made |= {"budget": load(f"budget/{budget}.yaml")}
    for key, value in changes.items():
        group, _, name = key.partition("__")
        if name:
            made[group][name] = value
        else:
            made[group] = value
    return {key: made[key] for key in KEYS}


def make(**changes: Any) -> Training:
    return make_training(config(**changes))
