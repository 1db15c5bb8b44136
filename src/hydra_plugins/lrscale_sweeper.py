"""The Hydra plugin that runs a multirun as a study.

Hydra imports this file at every start, so the file imports heavy modules only when they are used.
"""

from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StudySweeper(Sweeper):
    """The sweeper of a study: it runs every combination of the discrete values, and tunes the intervals in each combination.

    Its settings are in conf/hydra/sweeper/study.yaml.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from lrscale.hydra_app.app import sweep

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        return sweep(self.settings, self.config, self.hydra_context.config_loader, self.launcher, arguments)
