"""Hydra configs of tasks, optimizers, schedules and probes. They are made from the declarations beside the code, not files."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from lrscale.study.config import GROUPS


def register() -> None:
    """Adds the declarations to Hydra in this process. Other Hydra apps in the same installation do not change."""
    for plugin in (DeclaredConfigs, _SearchPath):
        Plugins.instance().register(plugin)


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
