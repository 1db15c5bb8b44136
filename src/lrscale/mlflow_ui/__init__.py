"""Prepares what MLflow's screens show of a study, and serves them. Imports `report`, `tracking`, `search` and all below."""
