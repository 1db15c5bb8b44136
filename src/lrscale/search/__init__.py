"""Chooses the lrs that are tried next. The only folder that imports Optuna. Also imports `study` and the folders below it."""
