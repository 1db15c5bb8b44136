"""The update rules of the optimizers, each declared beside its code. Imports the registry in `training/optimizers.py`."""
