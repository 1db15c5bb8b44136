"""The Hydra plugins that run a multirun as a study: of lrscale's own trainings, or of the training script of any Hydra app.

Hydra imports this file at every start, so the file imports heavy modules only when they are used.
"""

from typing import Any

from hydra.core.config_store import ConfigStore
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

        from lrscale.hydra_app.loader import context_of_multirun

        self.config, self.hydra_context = config, context_of_multirun(hydra_context)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from lrscale.hydra_app.app import sweep

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        return sweep(self.settings, self.config, self.hydra_context.config_loader, self.launcher, arguments)


class ScriptSweeper(Sweeper):
    """The sweeper `lrscale` of any Hydra app: resumable, and with `roles` a study. Its settings are in `SWEEPER`."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from lrscale.hydra_app.loader import context_of_multirun

        self.config, self.hydra_context, self.task_function = config, context_of_multirun(hydra_context), task_function

    def sweep(self, arguments: list[str]) -> Any:
        from lrscale.hydra_app.script_sweep import sweep_script

        assert self.config is not None and self.hydra_context is not None and self.task_function is not None
        return sweep_script(self.settings, self.config, self.hydra_context, self.task_function, arguments)


SWEEPER = {
    "_target_": "hydra_plugins.lrscale_sweeper.ScriptSweeper",
    "_recursive_": False,  # the sampler is looked up by its name, and not called by Hydra
    "defaults": [{"sampler": "auto"}],
    "direction": "minimize",
    "storage": "optuna.journal",
    "study_name": None,
    "n_trials": 20,
    "n_jobs": 1,
    "max_failure_rate": 0.0,
    "retries": 0,
    "n_retries": 1,
    "job_timeout": None,
    "tracking": '${oc.env:MLFLOW_TRACKING_URI,"sqlite:///mlflow.db"}',
    "params": None,
    "custom_search_space": None,
    "roles": None,
    "reductions": None,
    "optimizer": None,
    "question": None,
}
"""The settings of the sweeper `lrscale`; src/lrscale/hydra_app/README.md says what each does."""
SAMPLERS = {
    "auto": {"_target_": "auto", "seed": None},
    "ladder": {"name": "ladder", "widen": None},
    "tpe": {
        "_target_": "optuna.samplers.TPESampler", "seed": None, "n_startup_trials": 10, "n_ei_candidates": 24,
        "multivariate": None, "group": False, "constant_liar": True, "warn_independent_sampling": None,
        "consider_prior": None, "prior_weight": None, "consider_magic_clip": None, "consider_endpoints": None,
    },
    "random": {"_target_": "optuna.samplers.RandomSampler", "seed": None},
    "grid": {"_target_": "optuna.samplers.GridSampler", "seed": None},
    "gp": {"_target_": "optuna.samplers.GPSampler", "seed": None, "n_startup_trials": 10, "deterministic_objective": False},
    "qmc": {"_target_": "optuna.samplers.QMCSampler", "seed": None, "qmc_type": "sobol", "scramble": False},
    "cmaes": {
        "_target_": "optuna.samplers.CmaEsSampler", "seed": None, "x0": None, "sigma0": None, "independent_sampler": None,
        "warn_independent_sampling": True, "consider_pruned_trials": False, "restart_strategy": None, "inc_popsize": None,
        "use_separable_cma": False, "source_trials": None,
    },
    "nsgaii": {
        "_target_": "optuna.samplers.NSGAIISampler", "seed": None, "population_size": 50, "mutation_prob": None,
        "crossover_prob": 0.9, "swapping_prob": 0.5, "constraints_func": None,
    },
}  # fmt: skip
"""The choices of `hydra/sweeper/sampler`, with the options that Hydra's Optuna sweeper has."""


def _register() -> None:
    """Adds the configs to Hydra's store. What is stored already stays, such as the samplers of Hydra's Optuna sweeper."""
    store = ConfigStore.instance()
    sweepers = store.repo.get("hydra", {}).get("sweeper", {})
    if "lrscale.yaml" not in sweepers:
        store.store(group="hydra/sweeper", name="lrscale", node=SWEEPER, provider="lrscale")
    for name, node in SAMPLERS.items():
        if f"{name}.yaml" not in sweepers.get("sampler", {}):
            store.store(group="hydra/sweeper/sampler", name=name, node=node, provider="lrscale")


_register()
