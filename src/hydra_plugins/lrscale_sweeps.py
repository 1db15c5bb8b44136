"""The Hydra plugin that reads sweep files from a folder `sweeps`. It checks each file, because a stranger may have written it."""

from pathlib import Path

from hydra._internal.core_plugins import file_config_source
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf
from yaml import YAMLError


class SweepFiles(file_config_source.FileConfigSource):
    """A source of configs in a folder of which Hydra sees only the inner folder `sweeps`.

    Each file is checked before Hydra uses it.
    """

    @staticmethod
    def scheme() -> str:
        return "sweeps"

    def load_config(self, config_path: str) -> ConfigResult:
        from lrscale.errors import Refusal
        from lrscale.hydra_app.sweep_file import check_size, check_sweep, sweep_text, yaml_trouble

        text = sweep_text(config_path, Path(self.path) / self._normalize_file_name(config_path))
        try:
            check_size(config_path, text)
            result = super().load_config(config_path)
        except (YAMLError, ValueError, OSError, RecursionError) as error:
            raise Refusal(f"{config_path}: must be YAML with plain values, got {yaml_trouble(error, text):.300}.") from None
        result.header["package"] = (
            result.header.get("package") or "_global_"
        )  # a file without the header, or with a BOM before it
        check_sweep(config_path, OmegaConf.to_container(result.config), result.header.get("package"))
        return result

    def is_config(self, config_path: str) -> bool:
        return _is_in_sweeps(config_path) and bool(super().is_config(config_path))

    def is_group(self, config_path: str) -> bool:
        return (config_path == "" or _is_in_sweeps(config_path)) and bool(super().is_group(config_path))


def _is_in_sweeps(path: str) -> bool:
    parts = path.split("/")
    return parts[0] == "sweeps" and ".." not in parts
