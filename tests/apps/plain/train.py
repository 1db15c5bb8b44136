"""A training script of its own: linear regression with plain PyTorch. It knows nothing of lrscale."""

import hydra
import torch
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> dict[str, object]:
    data = torch.Generator().manual_seed(7)
    x = torch.randn(256, 8, generator=data)
    y = x @ torch.linspace(-1, 1, 8) + 0.1 * torch.randn(256, generator=data)
    order = torch.Generator().manual_seed(cfg.seed)
    w = (0.5 * torch.randn(8, generator=order)).requires_grad_()
    optimizer = torch.optim.SGD([w], lr=cfg.optim.lr)
    losses = []
    for _ in range(cfg.epochs):
        for batch in torch.randperm(256, generator=order).split(cfg.data.batch_size):
            errors = (x[batch] @ w - y[batch]) ** 2 / 2
            loss = errors.sum() if cfg.loss.reduction == "sum" else errors.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            losses.append(((x @ w - y) ** 2 / 2).mean().item())
    return {"objective": losses[-1], "curves": {"train_loss": losses}}


if __name__ == "__main__":
    main()
