"""The sweeper of studies, as a Hydra plugin. Hydra imports this file at every start, so heavy modules are imported later."""

from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StudySweeper(Sweeper):
    """Runs every combination of discrete values, and tunes intervals within each; see conf/hydra/sweeper/study.yaml."""

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
