"""The command `lrscale run`, and the sweeper `lrscale` of other Hydra apps.

The only folder that imports Hydra. Also imports `run` and the folders below it.
"""
