"""Servers as they are: with a login, behind TLS, a proxy or a redirect; passwords are never shown or recorded."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrscale.errors import Failure, Refusal, masked
from lrscale.tracking.client import check_uri
from lrscale.tracking.servers import spare_loopback
from lrscale.tracking.store import Store
from tests.program import TINY, _empty_store, at_work, here
from tests.scripts import install, sweep
from tests.servers import Server, free_port, make_certificate, proxy

PASSWORD = "open-sesame-1234"
SMALL = [*TINY[:-2], "batch_size=4", "hydra.sweeper.n_trials=2", TINY[-1]]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An MLflow server that asks for a login."""
    place = tmp_path_factory.mktemp("server")
    shutil.copy(_empty_store(), place / "mlflow.db")
    server = Server(place, PASSWORD)
    server.start()
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without logins, certificates and proxies."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        for key in (name, name.upper()):
            monkeypatch.setenv(key, "")  # so that the end of the test restores it
            monkeypatch.delenv(key)
    for key in ("USERNAME", "PASSWORD", "TOKEN", "INSECURE_TLS", "SERVER_CERT_PATH"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{key}", raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)


def log_in(monkeypatch: pytest.MonkeyPatch, password: str = PASSWORD) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


def with_login(uri: str) -> str:
    return uri.replace("://", f"://admin:{PASSWORD}@")


def refusal(uri: str) -> str:
    with pytest.raises(Refusal) as raised:
        check_uri(uri)
    assert "\n" not in str(raised.value) and PASSWORD not in str(raised.value)
    return str(raised.value)


def test_a_login_comes_from_the_environment_or_the_uri(locked: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "401: it asks for a login. Set MLFLOW_TRACKING_USERNAME" in refusal(locked.uri)
    check_uri(with_login(locked.uri))
    assert "401: it does not accept the login" in refusal(locked.uri.replace("://", "://admin:wrong-" + PASSWORD + "@"))
    log_in(monkeypatch, "wrong-" + PASSWORD)
    assert "401: it does not accept the login" in refusal(locked.uri)
    log_in(monkeypatch)
    check_uri(locked.uri)


def test_no_password_is_shown_or_recorded(locked: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = with_login(locked.uri)
    said = here(folder, "run", "-m", *SMALL, f"tracking.uri={uri}", empty=False)
    said += here(folder, "run", "seeds=1", "optimizer.lr=0.03", f"tracking.uri={uri}", empty=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for command in (["status"], ["report"], ["report", "--format", "json"], ["ui"]):
        said += here(folder, command[0], "d2l-reduction", *command[1:])
    for command in (["status", "nothing"], ["reproduce", "--from", "nothing"]):
        said += here(folder, *command, status=2)
    with pytest.raises(SystemExit):
        here(folder, "status", "--help")
    assert "lr_sum*" in said and "http://127.0.0.1" in said
    assert PASSWORD not in said and "admin:***@127.0.0.1" in said
    written = [path for place in (folder, locked.folder) for path in place.rglob("*") if path.is_file()]
    assert written and [path for path in written if PASSWORD.encode() in path.read_bytes()] == []


def test_the_jobs_of_a_script_log_in_too(locked: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("own_mlflow", folder)
    said = sweep(folder, f"hydra.sweeper.tracking={with_login(locked.uri)}", "hydra.sweeper.n_trials=2")
    assert PASSWORD not in said and "admin:***@127.0.0.1" in said
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert [path for path in written if PASSWORD.encode() in path.read_bytes()] == []
    store = Store.existing(with_login(locked.uri))
    query = "tags.written_by = 'the script'"
    jobs = [run for experiment in store._experiments() for run in store._runs(experiment.experiment_id, query)]
    assert len(jobs) == 2 and all("own_loss" in job.data.metrics and "lrscale.returned" in job.data.tags for job in jobs)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_certificate_of_ones_own(locked: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make_certificate(tmp_path / "own.pem")
    with proxy(locked.port, certificate=file) as uri:
        log_in(monkeypatch)
        said = refusal(uri)
        assert "certificate verify failed: self-signed certificate. Set MLFLOW_TRACKING_SERVER_CERT_PATH" in said
        for name, value in (("SERVER_CERT_PATH", str(file)), ("INSECURE_TLS", "true")):
            with monkeypatch.context() as patch:
                patch.setenv(f"MLFLOW_TRACKING_{name}", value)
                check_uri(uri)
        with monkeypatch.context() as patch:
            patch.setenv("REQUESTS_CA_BUNDLE", str(file))
            check_uri(uri)
        assert "take https://" in refusal(uri.replace("https", "http"))
    assert "take http://" in refusal(locked.uri.replace("http", "https"))


def test_a_proxy_is_asked_for_others_and_never_for_this_machine(locked: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    log_in(monkeypatch)
    with proxy(locked.port, 0.0, lambda path, count: bool(asked.append(path))) as address:
        monkeypatch.setenv("HTTP_PROXY", address.replace("://", "://me:proxy-secret@"))
        check_uri("http://tracking.test:5000")
        assert asked and {path.partition("/api")[0] for path in asked} == {"http://tracking.test:5000"}
        asked.clear()
        for host in ("127.0.0.1", "localhost"):
            check_uri(f"http://{host}:{locked.port}")
        assert asked == []
    monkeypatch.setenv("HTTP_PROXY", f"http://me:proxy-secret@127.0.0.1:{free_port()}")
    said = refusal("http://tracking.test:5000")
    assert "the proxy" in said and "Connection refused" in said and "HTTP_PROXY" in said and "proxy-secret" not in said


def test_the_names_of_this_machine_join_those_that_need_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_loopback()
    assert "no_proxy" not in os.environ  # where there is no proxy, nothing is set
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "a.test, localhost")
    spare_loopback()
    spare_loopback()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "a.test,localhost,127.0.0.1,::1"
    monkeypatch.setenv("no_proxy", "*")
    spare_loopback()
    assert os.environ["no_proxy"] == "*"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_named(status: int, locked: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(monkeypatch)
    with proxy(locked.port, moved=status) as uri:  # the login is not sent on to another port
        assert f"it redirects to {locked.uri}. Take that address" in refusal(uri)


def test_what_is_no_server_says_why(locked: Server) -> None:
    assert "no MLflow server is at this address" in refusal(f"{with_login(locked.uri)}/nothing/here")
    said = refusal(f"http://127.0.0.1:{free_port()}")
    assert "Connection refused. Start it: mlflow server." in said
    assert "Correct the name of the host" in refusal("http://nowhere.invalid:5000")
    assert "%20" in refusal(f"http://admin:open sesame {PASSWORD}@127.0.0.1")


def test_records_wait_without_the_password_and_find_it_again(
    locked: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away: list[int] = []
    with proxy(locked.port, 0.0, lambda path, count: bool(away)) as address, monkeypatch.context() as patch:
        at_work(patch, {1: lambda: away.append(1)})
        study = [*SMALL, "hydra.sweeper.study_name=waits", f"tracking.uri={with_login(address)}"]
        said = here(folder, "run", "-m", *study, status=1, empty=False)
        (waiting,) = folder.glob("*.outbox")
        assert "lrscale sync" in said and "onnection aborted" in said and PASSWORD not in said + waiting.read_text()
        away.clear()
        assert "MLFLOW_TRACKING_URI" in here(folder, "sync", status=2)
        patch.setenv("MLFLOW_TRACKING_URI", with_login(address))
        assert "delivered" in here(folder, "sync") and not waiting.exists()
        assert "4/4 trials" in here(folder, "status", "waits")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:p@h/x", "http://u:***@h/x"),
        ("postgresql+psycopg://u:a@b/c?d@h:1/x failed", "postgresql+psycopg://u:***@h:1/x failed"),
        ("postgresql://u@h/x?password=p&sslmode=off", "postgresql://u@h/x?password=***&sslmode=off"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dp", "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3D***"),
        ("wasbs://c@a/x?sv=1&sig=p&se=2", "wasbs://c@a/x?sv=1&sig=***&se=2"),
        ("https://token@h", "https://***@h"),
        (r"uri=http\://u\:p@h\:1 x@y", r"uri=http\://u\:***@h\:1 x@y"),
        ("http://h:5000/x got a@b", "http://h:5000/x got a@b"),
        ("value hidden here", "value *** here"),
    ],
)
def test_passwords_are_masked(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hidden")
    assert masked(text) == masked(masked(text)) == shown
    assert str(Failure(text)) == str(Refusal(text)) == shown


def test_any_variable_named_as_a_secret_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "abcdefgh1")
    monkeypatch.setenv("SHORT_TOKEN", "mean")
    assert masked("key abcdefgh1, mean loss") == "key ***, mean loss"
