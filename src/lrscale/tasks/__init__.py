"""The tasks: data, models and per-example losses. Each task is declared beside its code. Imports torch and the root."""

from lrscale.tasks import images, least_squares, named

__all__ = ["images", "least_squares", "named"]  # the modules that declare tasks
