"""Carries out a plan: its jobs, its rounds, the progress display, and the report at the end. Imports `mlflow_ui` and below."""
