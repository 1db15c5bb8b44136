"""Hydra configs of tasks, optimizers, schedules and probes. They are made from the declarations beside the code, not files."""

from collections.abc import Iterator, Sequence

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from lrscale.spec import is_own
from lrscale.study.config import GROUPS
from lrscale.tasks.source import read_source


def register() -> None:
    """Adds the declarations to Hydra in this process. Other Hydra apps in the same installation do not change."""
    for plugin in (DeclaredConfigs, _SearchPath):
        Plugins.instance().register(plugin)


def explained(arguments: Sequence[str]) -> Iterator[str]:
    """Yields lines of help on the tasks, optimizers, schedules and probes of a command line, and on their options."""
    chosen = {"task": "d2l", "optimizer": "sgd", "schedule": "constant"}
    chosen |= dict(a.split("=", 1) for a in arguments if a.partition("=")[0] in GROUPS)
    yield "Options of the chosen members; choose others to see theirs:\n"
    for group, choice in chosen.items():
        if not GROUPS[group].has_choice(choice):
            continue
        if is_own(choice):
            source = read_source(group, choice)
            yield f"{group}={choice}: {source.about}"
            yield from (f"  {group}.{key}={value}" for key, value in source.defaults.items())
            yield ""
            continue
        config = GROUPS[group].config(choice)[group]
        declaration = GROUPS[group][config["name"]]
        yield f"{group}={choice}: {declaration.about}"
        for key, option in declaration.options.items():
            about = f"   {option.about}" if option.about else ""
            yield f"  {group}.{key}={config[key]}{about}"
        yield ""


class DeclaredConfigs(ConfigSource):
    """The source of the configs `task/NAME`, `optimizer/NAME` and so on, made from `lrscale.study.config.GROUPS`."""

    @staticmethod
    def scheme() -> str:
        return "lrscale"

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, choice = self._normalize_file_name(config_path).removesuffix(".yaml").partition("/")
        if group in GROUPS:
            GROUPS[group].check_choice(choice)
        if not self.is_config(config_path):
            raise ConfigLoadError(f"There is no {group} called {choice}.")
        config = OmegaConf.create(GROUPS[group].config(choice))
        return ConfigResult(self.scheme(), self.path, config, {"package": "_global_"})

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path in ("", *GROUPS)

    def is_config(self, config_path: str) -> bool:
        group, _, choice = config_path.removesuffix(".yaml").partition("/")
        return group in GROUPS and (GROUPS[group].has_choice(choice) or choice in GROUPS[group].refused)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if config_path == "":
            return [] if results_filter == ObjectType.CONFIG else list(GROUPS)
        if results_filter == ObjectType.GROUP or config_path not in GROUPS:
            return []
        return list(GROUPS[config_path].choices())


class _SearchPath(SearchPathPlugin):
    """Adds the declarations to Hydra's search path for configs."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("lrscale", f"{DeclaredConfigs.scheme()}://")
