"""AdamW decays weights and spares biases, in two groups with lrs of their own.

Right: divide the loss by the number of micro-batches; groups change nothing.
"""

import torch

from tests.cases import Case, class_loss, loop, net, points


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    weights, biases = ([weight for weight in model.parameters() if weight.ndim == axes] for axes in (2, 1))
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0, "lr": 1e-2}]
    step = loop(model, lambda micro, window: class_loss(model, micro) / len(window), torch.optim.AdamW(groups, lr=1e-3))
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1, "p": 0})
