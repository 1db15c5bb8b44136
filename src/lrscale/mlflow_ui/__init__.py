"""What MLflow's screens show of a study, and its server. Imports `report`, `tracking`, `search` and below."""
