"""Writes records to MLflow and reads them. The only folder that imports MLflow. Also imports `study` and the folders below."""
