"""Training of many runs as one tensor program, and the plain loop that checks it. Imports torch, `law` and `tasks`."""

from lrscale.training import named_optimizer
from lrscale.training.update_rules import adam_family, descent, matrix_rules, refused, root_mean_squares

# the modules that declare optimizers
__all__ = ["adam_family", "descent", "matrix_rules", "named_optimizer", "refused", "root_mean_squares"]
