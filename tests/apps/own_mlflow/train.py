"""A training script that logs to MLflow by itself, and knows nothing of lrscale."""

import hydra
import mlflow
from omegaconf import DictConfig, OmegaConf


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    with mlflow.start_run():
        mlflow.log_params(OmegaConf.to_container(cfg))
        for step in range(3):
            mlflow.log_metric("own_loss", (cfg.x - 1) ** 2 + cfg.y + 1 / (1 + step), step=step)
        mlflow.set_tag("written_by", "the script")
    if cfg.leave_open:
        mlflow.start_run()
    return float((cfg.x - 1) ** 2 + cfg.y)


if __name__ == "__main__":
    main()
