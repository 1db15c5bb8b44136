"""`lrscale run`. The only folder that imports Hydra; besides it `run` and below."""
