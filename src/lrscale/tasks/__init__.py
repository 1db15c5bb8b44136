"""What is trained: data, models and per-example losses, each task declared beside its code. Imports torch and the root."""
