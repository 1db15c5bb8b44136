"""Asks an MLflow server through MLflow's own client, and says in one line why it cannot be used, with the way out."""

import os
import re
import urllib.request

import urllib3
from mlflow.exceptions import MlflowException, RestException
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from urllib3.exceptions import InsecureRequestWarning

from lrscale.files import reason

urllib3.disable_warnings(InsecureRequestWarning)  # who sets MLFLOW_TRACKING_INSECURE_TLS knows, and each call would warn
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""The names under which a machine reaches itself."""
SEARCH = "/api/2.0/mlflow/experiments/search"
"""The first call of MLflow's client."""
LOGIN = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
"""The environment variables with which MLflow's client logs in."""
STATUS = re.compile(r"failed with error code (\d+) != 200\. Response body: '(.*)'", re.DOTALL)
NO_SERVER = "no MLflow server is at this address. Take the one at which its page opens, without # and what follows it."
STATUS_WAYS = {
    "401": f"it asks for a login. Set {LOGIN}.",
    "403": "this login may not do that. Ask whoever runs the server for the permission.",
    "404": NO_SERVER,
    "405": NO_SERVER,
    "407": "the proxy asks for a login. Write it into HTTPS_PROXY and HTTP_PROXY, as http://USER:PASSWORD@HOST:PORT.",
}
"""What an HTTP status means, and the way out."""
CONNECTION_WAYS = {
    "CERTIFICATE_VERIFY_FAILED": "Set MLFLOW_TRACKING_SERVER_CERT_PATH to the file of the certificate or of its authority.",
    "invalid path": "Set MLFLOW_TRACKING_SERVER_CERT_PATH or REQUESTS_CA_BUNDLE to a file that exists.",
    "WRONG_VERSION_NUMBER": "The server does not speak TLS: take http:// for https://.",
    "407 Proxy": "Write the proxy's login into HTTPS_PROXY, as http://USER:PASSWORD@HOST:PORT.",
    "ProxyError": "Correct HTTP_PROXY and HTTPS_PROXY, or add the host to NO_PROXY.",
    "onnection refused": "Start it: mlflow server.",
    "Failed to resolve": "Correct the name of the host.",
    "timed out": "Wait until it answers, or set MLFLOW_HTTP_REQUEST_TIMEOUT to more seconds.",
    "onnection aborted": "Where the server speaks TLS, take https:// for http://.",
}
"""The way out of an error of the connection, by a part of its text; the first that fits counts."""


def spare_loopback() -> None:
    """Adds this machine's own names to NO_PROXY where a proxy is set: a proxy's own 127.0.0.1 is another machine."""
    proxies = urllib.request.getproxies_environment()
    known = proxies.get("no", "")
    names = [name.strip() for name in known.split(",") if name.strip()]
    missing = [name for name in LOOPBACK if name not in names]
    if set(proxies) - {"no"} and missing and "*" not in names:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*names, *missing])


def trouble(uri: str) -> str | None:
    """Asks a server for its experiments.

    Returns:
      None where it answers; else the reason and the way out, as sentences.
    """
    spare_loopback()
    try:
        MlflowClient(uri).search_experiments(max_results=1)
    except (MlflowException, OSError, ValueError) as error:
        return why(uri, error)
    return None


def why(uri: str, error: BaseException) -> str:
    """Returns why a call to a server failed, and the way out, as sentences.

    Args:
      uri: the URI of the server.
      error: what MLflow's client raised.
    """
    text = str(error)
    if "failed with exception" in text or "timeout exception" in text:
        way_out = next((way for sign, way in CONNECTION_WAYS.items() if sign in text), "")
        return f"{_cause(text)}. {way_out}".rstrip()
    moved = _redirect(uri)
    if moved is not None:
        return f"it redirects to {moved}. Take that address if MLflow's page opens there."
    status = STATUS.search(text)
    if status is None:
        return reason(error) + "."
    code, body = status.groups()
    said = reason(ValueError(re.sub(r"<[^>]*>|\s+", " ", body).strip()[:200])) if body.strip() else ""
    meaning = STATUS_WAYS.get(code, f"{said}. Ask whoever runs it." if said else "Ask whoever runs it.")
    if code == "401" and ("@" in uri or os.environ.get("MLFLOW_TRACKING_USERNAME") or os.environ.get("MLFLOW_TRACKING_TOKEN")):
        meaning = f"it does not accept the login. Correct {LOGIN}."
    quoted = f" ({said})" if said and code in ("403", "407") else ""
    return f"HTTP status {code}{quoted}: {meaning}"


def lacks_experiment(error: BaseException | None) -> bool:
    """Returns whether a server does not know what it is asked to write to, as where its database was replaced."""
    return isinstance(error, RestException) and error.error_code == "RESOURCE_DOES_NOT_EXIST"


def _cause(text: str) -> str:
    """Returns the innermost error in the text of an error of the connection."""
    text = text.rpartition("Caused by ")[2] if "Caused by " in text else text.partition("exception ")[2]
    certificate = re.search(r"certificate verify failed[^'\"]*", text)
    tunnel = re.search(r"Tunnel connection failed[^'\"]*", text)
    found = certificate or tunnel or re.search(r"(?:\[Errno[^\]]*\] |Failed to resolve )[^()]*|\[SSL: [^'\"]*", text)
    cause = found.group() if found else text
    kind = "the proxy: " if "ProxyError" in text else ""
    return reason(ValueError(kind + re.sub(r"\s*\(_ssl.*", "", cause).strip("'\"() ")))


def _redirect(uri: str) -> str | None:
    """Returns the address to which a server redirects; None where it does not.

    MLflow's client follows redirects, but after most of them it asks for another thing: GET in place of POST.
    """
    try:
        answer = http_request(
            get_default_host_creds(uri), SEARCH, "POST", json={"max_results": 1}, allow_redirects=False, raise_on_status=False
        )
    except (MlflowException, OSError):
        return None
    return answer.headers["Location"].removesuffix(SEARCH) if answer.is_redirect else None
