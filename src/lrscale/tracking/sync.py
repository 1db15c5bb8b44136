"""Delivers the records that wait on disk for servers that were away: `lrscale sync`."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

from lrscale.errors import Failure, Refusal
from lrscale.locks import study_lock
from lrscale.tracking.client import answers, deliver
from lrscale.tracking.lease import study_lease
from lrscale.tracking.outbox import Outbox, deliver_all
from lrscale.tracking.store import Store


def sync(folder: Path) -> list[tuple[Outbox, int, str]]:
    """Delivers the records that wait in a folder for servers.

    Args:
      folder: the folder with the outboxes.

    Returns:
      For each outbox that had records: the outbox, the number of records, and the name of their study.

    Raises:
      Failure: a server is away.
      Refusal: nothing waits, or the study is running and delivers its own records.
    """
    outboxes = [Outbox(path) for path in sorted(folder.glob("*.outbox"))]
    if not outboxes:
        raise Refusal(
            f"`FOLDER` must hold records that wait for a server (*.outbox), got {folder.resolve()}: nothing waits there."
        )
    delivered = []
    for outbox in outboxes:
        entries = outbox.entries()
        if not entries:
            outbox.clear()
            continue
        uri, study = str(entries[0]["uri"]), str(entries[0]["study"])
        with study_lock(study, [outbox.path]):
            if not uri.startswith("http") or not answers(uri):
                raise Failure(f"{uri} does not answer: {len(entries)} records go on waiting in {outbox.path}.")
            store = Store(uri)
            is_study = store.client.get_experiment_by_name(study) is not None  # and not a single training
            with study_lease(uri, study, print) if is_study else nullcontext():
                delivered.append((outbox, deliver_all(outbox, uri, partial(deliver, store.client)), study))
    return delivered
