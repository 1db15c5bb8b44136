"""Files of runs in an S3 store, reached directly or through MLflow's server; and a store that is down or refuses its keys."""

import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from mlflow.store.artifact import s3_artifact_repo

from lrscale.tracking.schema import STUDY_FILE
from lrscale.tracking.store import Store
from tests.object_store import BUCKET, KEYS, ObjectStore
from tests.program import TINY, _empty_store, at_work, here
from tests.scripts import install, sweep
from tests.servers import Server

SMALL = [*TINY[:-2], "batch_size=4", "hydra.sweeper.n_trials=2", TINY[-1]]
PLACES = ["s3", "mlflow-artifacts"]
"""Direct access with the client's own keys, and access through the server."""


@pytest.fixture(scope="module")
def objects() -> Iterator[ObjectStore]:
    store = ObjectStore()
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {**KEYS, "MLFLOW_S3_ENDPOINT_URL": store.url}.items():
            patch.setenv(key, value)
        yield store
    store.stop()


@pytest.fixture(scope="module")
def server(objects: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An MLflow server that keeps files in the object store."""
    place = tmp_path_factory.mktemp("server")
    shutil.copy(_empty_store(), place / "mlflow.db")
    server = Server(place, files=f"s3://{BUCKET}/proxied")
    server.start()
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def mended(objects: ObjectStore) -> Iterator[None]:
    """Afterwards the store is up and accepts its keys."""
    yield
    objects.refuse(False)
    s3_artifact_repo._cached_get_s3_client.cache_clear()
    if objects.server is None:
        objects.start()


def options(server: Server, place: str, study: str) -> list[str]:
    """The options of a study whose files are at a place."""
    if place == "s3":
        client = Store(server.uri).client
        if client.get_experiment_by_name(study) is None:
            client.create_experiment(study, artifact_location=f"s3://{BUCKET}/direct/{study}")
    return [f"tracking.uri={server.uri}", f"hydra.sweeper.study_name={study}"]


def line(said: str) -> str:
    (found,) = [line for line in said.splitlines() if line.startswith("lrscale: ")]
    assert "Traceback" not in said and KEYS["AWS_SECRET_ACCESS_KEY"] not in said
    return found


@pytest.mark.parametrize("place", PLACES)
def test_a_study_with_its_files_in_s3(place: str, server: Server, objects: ObjectStore, folder: Path) -> None:
    study = f"whole-{place}"
    ways = options(server, place, study)
    at_server = ["--tracking-uri", server.uri]
    here(folder, "run", "-m", *SMALL, *ways, empty=False)
    record = Store(server.uri).study(study)
    where = f"{'direct' if place == 's3' else 'proxied'}/"
    of_run = [name.partition("/artifacts/")[2] for name in objects.names() if name.startswith(where) and record.run_id in name]
    assert {STUDY_FILE, "report.json", "figures/objective_against_lr.png"} <= set(of_run)
    assert not list(folder.rglob("mlruns")) and not list(folder.rglob("mlartifacts"))
    said = here(folder, "run", "-m", *SMALL, *ways, "hydra.sweeper.n_trials=3", empty=False)
    assert "6 trials, 4 of them in the store already" in said
    assert "6/6 trials" in here(folder, "status", study, *at_server)
    assert "lr_sum*" in here(folder, "report", study, *at_server)
    picture = f"{server.uri}/get-artifact?path=figures%2Fobjective_against_lr.png&run_uuid={record.run_id}"
    assert "get-artifact" in Store(server.uri).run_tags(record.run_id)["mlflow.note.content"]
    with urllib.request.urlopen(picture) as answer:  # as MLflow's page asks for it
        assert answer.read(8) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("place", PLACES)
def test_a_store_that_goes_away_loses_no_trial(
    place: str, server: Server, objects: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = f"away-{place}"
    command = ["run", "-m", *SMALL, "batch_size=4,16", "hydra.sweeper.max_failure_rate=0.5", *options(server, place, study)]

    def crash() -> None:
        objects.stop()
        raise RuntimeError("a crash has a file of its own")

    with monkeypatch.context() as patch:
        at_work(patch, {2: crash})
        said = here(folder, *command, status=1, empty=False)
    assert "the study is complete and its trials are recorded, but the files of its report wait in studies/" in line(said)
    assert "the same command stores them" in line(said)
    reason = "Could not connect to the endpoint" if place == "s3" else "HTTP status 500"
    assert reason in line(said)
    store = Store(server.uri)
    (experiment,) = [e.experiment_id for e in store._experiments() if e.name == study]
    runs = list(store._runs(experiment, ""))
    assert sorted(run.data.tags["lrscale.kind"] for run in runs) == ["crash"] * 2 + ["study"] + ["trial"] * 6
    assert {run.info.status for run in runs} == {"FINISHED", "FAILED"}
    for note in [run.data.tags["mlflow.note.content"] for run in runs if run.data.tags["lrscale.kind"] == "crash"]:
        assert "traceback.txt could not be stored" in note and "RuntimeError: a crash has a file of its own" in note
    assert reason in line(here(folder, "report", study, "--tracking-uri", server.uri, status=1))
    assert "Start it, or set MLFLOW_S3_ENDPOINT_URL" in line(said) or place != "s3"
    assert line(here(folder, *command, status=2, empty=False)).count(reason) == 1
    objects.start()
    here(folder, *command, empty=False)
    (parent,) = [run.info.run_id for run in runs if run.data.tags["lrscale.kind"] == "study"]
    assert any(parent in name and name.endswith("report.json") for name in objects.names())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("no package", "MLflow needs the package boto3 for it, which is not installed. Install it: pip install 'lrscale[s3]'."),
        ("keys", "Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."),
        ("no keys", "Unable to locate credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."),
        ("bucket", "The specified bucket does not exist. Make the bucket"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_before_anything_is_written(
    damage: str, reason: str, objects: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("numbers", folder)
    before = sorted(folder.rglob("*"))
    client = Store(f"sqlite:///{folder}/mlflow.db").client
    bucket = BUCKET if damage != "bucket" else "another-one"
    for name in ("numbers", "d2l-reduction"):
        client.create_experiment(name, artifact_location=f"s3://{bucket}/{damage.replace(' ', '-')}")
    if damage == "no package":
        monkeypatch.setitem(sys.modules, "boto3", None)
    if damage == "no keys":
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("HOME", str(folder))
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(key)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it and MLflow's client keep the keys
        s3_artifact_repo._cached_get_s3_client.cache_clear()
    objects.refuse(damage == "keys")
    for said in (here(folder, "run", "-m", *SMALL, status=2), sweep(folder, status=2)):
        assert reason in line(said) and f"s3://{bucket}/" in line(said)
    assert client.search_runs([e.experiment_id for e in client.search_experiments()]) == []
    assert [path for path in sorted(folder.rglob("*")) if path.name.partition("-")[0] not in ("mlflow.db",)] == [
        path for path in before if path.name.partition("-")[0] != "mlflow.db"
    ]
