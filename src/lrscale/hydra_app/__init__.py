"""The command `lrscale run`. The only folder that imports Hydra. Also imports `run` and the folders below it."""
