"""A script that trains nothing: it returns what its keys say, and writes down that it was called."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

WRONG = {"text": "0.5", "nothing": None, "list": [1.0], "keys": {"loss": 1.0}, "boolean": True}


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> Any:
    folder = Path(HydraConfig.get().runtime.output_dir)
    with (folder.parent / "calls.txt").open("a") as file:
        file.write(f"{HydraConfig.get().job.num} {cfg.x} {cfg.y} {cfg.seed}\n")
    (folder / "mine.txt").write_text(str(cfg.x))
    time.sleep(cfg.seconds)
    if cfg.wrong is not None:
        return WRONG[cfg.wrong]
    if os.environ.get("DOWN") == "exit":
        sys.exit(3)
    if os.environ.get("DOWN") == "yes" and cfg.x > cfg.down_above:
        raise RuntimeError("the data server is away")
    if cfg.nan_above is not None and cfg.x > cfg.nan_above:
        return float("nan") if cfg.y else float("inf")
    return np.float32((cfg.x - 1) ** 2 + cfg.y)


if __name__ == "__main__":
    main()
