"""Makes the saved view of the experiment of audits: a table with each audit's verdict, its findings and its numbers."""

import time

from lrscale.mlflow_ui.saved_views import View, tags
from lrscale.tracking.schema import AUDIT_KINDS, AUDIT_VERDICT, KIND
from lrscale.tracking.store import Store

AUDIT_VIEW = "lrscale-audits"
"""The id of the view."""
AUDIT_COLUMNS = {
    f"tags.{AUDIT_VERDICT}": 110,
    f"tags.{AUDIT_KINDS}": 230,
    "params.optimizer": 90,
    "params.lr": 65,
    "params.accumulation": 100,
    "metrics.growth": 75,
    "metrics.accumulation_factor": 150,
    "metrics.c": 60,
    "metrics.p": 60,
    "metrics.clip_threshold": 115,
}
"""The columns of the view, with their widths in pixels."""


def show_audits(store: Store, experiment: str) -> None:
    """Writes the view of audits, newest first, to the experiment that holds them."""
    view = View(AUDIT_VIEW, "Audits", f"tags.`{KIND}` = 'audit'", "attributes.start_time", False, AUDIT_COLUMNS, ())
    store.tag_experiment(experiment, tags([view], [], int(time.time() * 1000)))
