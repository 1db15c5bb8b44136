"""The optimizers of torch.optim that cannot be chosen, each with the reason."""

from lrscale.training.optimizers import OPTIMIZERS

_SPARSE = "it is for sparse gradients, and the gradients here are dense. Take optimizer=adam."

OPTIMIZERS.refuse("sparse_adam", _SPARSE)
OPTIMIZERS.refuse("sparseadam", _SPARSE)
OPTIMIZERS.refuse(
    "lbfgs",
    "it computes the loss several times in a step (a closure), and on other weights each time, where a step here has one "
    "gradient. Take optimizer=sgd or optimizer=adam.",
)
