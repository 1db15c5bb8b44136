"""What MLflow's screens show of a study, and the server. Imports `report`, `tracking`, `search` and the folders below."""
