"""Carries out a plan: jobs, rounds, progress, and the report at the end. Imports `mlflow_ui` and below."""
