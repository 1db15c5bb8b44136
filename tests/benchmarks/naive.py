"""A simple pipeline, as most people first write it.

It has one Hydra job for each training, a DataLoader, one call of log_metric for each point, and Optuna on SQLite.
`python -m tests.benchmarks.headline` runs it. It trains as the headline study does, but one run at a time.
"""

import hydra
import mlflow
import optuna
import torch
from omegaconf import DictConfig
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lrscale.tasks.registry import make_task
from lrscale.training.engine import recording_steps
from tests.configs import make


@hydra.main(version_base="1.3", config_path=None)
def main(config: DictConfig) -> None:
    torch.set_num_threads(1)
    made = make(task="linear", batch_size=int(config.batch_size), budget__epochs=10, points=90)
    task, points = make_task(made), set(recording_steps(made))
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("naive")

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1e-3, log=True)
        model = nn.Linear(32, 1, bias=False, dtype=torch.float64)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        loader = DataLoader(TensorDataset(task.data.x, task.data.y), made.batch_size, shuffle=True)
        with mlflow.start_run():
            mlflow.log_params({"lr": lr, "batch_size": made.batch_size})
            step, loss = 0, torch.zeros(())
            for _ in range(10):
                for x, y in loader:
                    optimizer.zero_grad()
                    (nn.functional.mse_loss(model(x).squeeze(1), y) / 2).backward()
                    optimizer.step()
                    step += 1
                    if step in points:
                        with torch.no_grad():
                            loss = nn.functional.mse_loss(model(task.data.x).squeeze(1), task.data.y) / 2
                        mlflow.log_metric("train_loss", float(loss), step=step)
        return float(loss)

    optuna.create_study(study_name=f"b{made.batch_size}", storage="sqlite:///optuna.db").optimize(objective, n_trials=1)


if __name__ == "__main__":
    main()
