# %% [markdown]
# # How must the lr of my network scale with batch size, under mean and under sum?
# A small network on scikit-learn's digits. Nothing is written to the working folder.

# %%
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import lrscale

# %% The data, the model and the loss
pixels, digits = load_digits(return_X_y=True)
x, y = torch.as_tensor(pixels, dtype=torch.float32) / 16, torch.as_tensor(digits)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


task = lrscale.Task(mlp, F.cross_entropy, (x[:1408], y[:1408]), (x[1408:], y[1408:]), wrong=lrscale.top1)

# %% A first look: one lr after another
curves = lrscale.train(task, np.geomspace(0.01, 1, 4), batch_size=32, epochs=1)
print(curves.valid_loss)

# %% The question
answer = lrscale.study(task, batch_size=(32, 128), lr=(0.03, 10), seeds=2, n_trials=12, epochs=1)
page = answer._repr_html_()  # a notebook shows this where a cell ends with `answer`

# %% The answer in a sentence
print(answer.law[0])

# %% The numbers
cells = answer.to_pandas()
print(cells.pivot(index="batch_size", columns="reduction", values="lr_best"))

# %% All runs
runs = answer.trials()
print(runs.groupby("cell").objective.min())

# %% A figure
figure = answer.figure("objective_against_lr")
