"""What is recorded, and read back. The only folder that imports MLflow; besides it `study` and below."""
