"""Where the files of runs are kept: a folder, a server, or a store such as S3; and in one line why it cannot be used."""

import re
from importlib.util import find_spec
from urllib.parse import urlsplit

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from lrscale.errors import Failure
from lrscale.files import reason
from lrscale.tracking.servers import why

FILE_METHODS = ("log_text", "log_dict", "log_artifacts", "download_artifacts", "list_artifacts")
"""The methods of MLflow's client that write or read the files of a run. The id of the run is their first argument."""
DRIVERS = {"s3": ("boto3", "lrscale[s3]")}
"""The package that MLflow needs for a kind of store, and what installs it, by the scheme of the store's address."""
LOGIN_OF_S3 = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
PLACE_WAYS = {
    "Unable to locate credentials": f"Set {LOGIN_OF_S3}.",
    "Access Key Id": f"Correct {LOGIN_OF_S3}.",
    "signature": f"Correct {LOGIN_OF_S3}.",
    "AccessDenied": "Ask whoever runs the store to let these keys list, read and write there.",
    "Access Denied": "Ask whoever runs the store to let these keys list, read and write there.",
    "Forbidden": "Ask whoever runs the store to let these keys list, read and write there.",
    "expired": "Renew AWS_SESSION_TOKEN.",
    "bucket does not exist": "Make the bucket, or set MLFLOW_S3_ENDPOINT_URL to the store that has it.",
    "connect to the endpoint": "Start it, or set MLFLOW_S3_ENDPOINT_URL to its address.",
}
"""The way out of an error, by a part of its text; the first that fits counts."""
ABSENT_FILE = "lrscale-asks"
"""The name of a file that no run has: a store that can be used says that it has no such file."""


class Unstored(Failure):
    """Raised where a store of files does not take, or does not give, a file of a run. The store of runs itself answers."""


def is_local(place: str) -> bool:
    """Returns whether files are kept in a folder.

    Example:
      >>> is_local("/home/me/mlruns/0"), is_local("file:///tmp/mlruns"), is_local("s3://bucket/0")
      (True, True, False)
    """
    return urlsplit(place).scheme in ("", "file") or (len(urlsplit(place).scheme) == 1)  # one letter: a drive of Windows


def missing_driver(place: str) -> str | None:
    """Returns what a store needs that is not installed, as a sentence; None where nothing is missing."""
    package, extra = DRIVERS.get(urlsplit(place).scheme, ("", ""))
    if not package or find_spec(package) is not None:
        return None
    return f"MLflow needs the package {package} for it, which is not installed. Install it: pip install '{extra}'."


def place_trouble(place: str, uri: str) -> str | None:
    """Asks a store of files whether it can be used.

    Args:
      place: the address of the files of an experiment or a run.
      uri: the URI of the MLflow store; files at `mlflow-artifacts:` go through its server.

    Returns:
      None where it can be used; else the reason and the way out, as sentences.
    """
    if is_local(place):
        return None
    if (missing := missing_driver(place)) is not None:
        return missing
    try:
        get_artifact_repository(place, tracking_uri=uri).list_artifacts(ABSENT_FILE)
    except Exception as error:  # each kind of store has errors of its own
        return why_not(place, uri, error)
    return None


def why_not(place: str, uri: str, error: BaseException) -> str:
    """Returns why a store of files could not be used, and the way out, as sentences.

    Args:
      place: the address of the files.
      uri: the URI of the MLflow store.
      error: what MLflow or the driver raised.
    """
    if urlsplit(place).scheme == "mlflow-artifacts":
        if "500" in str(error):  # MLflow's server says no more
            return "the server could not reach its own store of files (HTTP status 500). Its log says why. Ask whoever runs it."
        return why(uri, error)
    text = re.sub(r"(https?://[^/\s\"]+)/[^\s\"]*", r"\1", reason(error).rpartition(f"{place}: ")[2])
    return f"{text}. {next((way for sign, way in PLACE_WAYS.items() if sign in str(error)), '')}".rstrip()
