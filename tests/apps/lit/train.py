"""A training script with Lightning and MLflow's autologging. It knows nothing of lrscale."""

import hydra
import lightning
import mlflow
import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader, TensorDataset


class Regression(lightning.LightningModule):
    def __init__(self, lr: float, reduction: str) -> None:
        super().__init__()
        self.lr, self.loss = lr, torch.nn.MSELoss(reduction=reduction)
        self.model = torch.nn.Linear(4, 1)
        self.losses: list[float] = []

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        x, y = batch
        loss: torch.Tensor = self.loss(self.model(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    lightning.seed_everything(cfg.seed, verbose=False)
    mlflow.pytorch.autolog(log_models=False, checkpoint=False)
    data = torch.Generator().manual_seed(7)
    x = torch.randn(128, 4, generator=data)
    y = x.sum(1, keepdim=True) + 0.1 * torch.randn(128, 1, generator=data)
    module = Regression(cfg.model.lr, cfg.model.reduction)
    trainer = lightning.Trainer(
        max_epochs=cfg.epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=cfg.batch_size, shuffle=True))
    with torch.no_grad():
        return float(torch.nn.functional.mse_loss(module.model(x), y))


if __name__ == "__main__":
    main()
