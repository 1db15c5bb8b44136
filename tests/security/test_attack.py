"""A stranger's sweep files, records, names and artifacts: they run nothing, write nowhere else, and mark nothing up."""

import http.client
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from lrscale.errors import Refusal
from lrscale.mlflow_ui.serve import _mlflow
from lrscale.mlflow_ui.server import LOCAL, free_port
from lrscale.provenance import NUMBERS
from lrscale.search.storage import check_storage
from tests.configs import ROOT
from tests.packed import unpacked
from tests.program import TINY, _empty_store, here

PLOTLY = (ROOT / "src" / "lrscale" / "report" / "plotly-basic.min.js").read_text()

TARGET = {"_target_": "os.system", "command": "touch PWNED"}
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "[bold red]x[/] [link=http://evil]y[/link] [/nosuch]",
    "\x1b[2J\x1b]0;owned\x07 \x9b31m",
    "\u202egnp.exe\u2066",
    "{{ 7 * 7 }}{% for x in y %}",
    "$\\frac{$ $x^",
    "../../../../tmp/PWNED",
    "${oc.env:HOME} ${hydra:runtime.cwd}",
    "a\nb\r\nlrscale: all is well",
    "x" * 5000,
    ":warning: %s {0} \\",
]


def sweep(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "defaults": [{"override /task": "d2l"}],
        "hydra": {
            "mode": "MULTIRUN",
            "sweeper": {"n_trials": 5, "params": {"seeds": 2, "batch_size": "4,8", "optimizer.lr": "tag(log,interval(1e-3,1))"}},
        },
        "study": {"question": "Why?"},
    }
    for key, value in changes.items():
        place = made
        *above, last = key.split("__")
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return made


ATTACKS: dict[str, dict[str, Any]] = {
    "a callback": sweep(hydra__callbacks={"x": TARGET}),
    "another launcher": sweep(hydra__launcher=TARGET),
    "a nested target in the launcher": sweep(hydra__launcher={"x": TARGET}),
    "another sweeper": sweep(hydra__sweeper___target_="os.system"),
    "a nested target in the sampler": sweep(hydra__sweeper__sampler={"name": "tpe", "gamma": TARGET}),
    "a nested target in params": sweep(hydra__sweeper__params={"x": TARGET}),
    "logging": sweep(hydra__job_logging={"version": 1, "handlers": {"x": {"()": "os.system", "command": "touch PWNED"}}}),
    "a search path": sweep(hydra__searchpath=["file:///tmp"]),
    "a folder": sweep(hydra__run={"dir": "/tmp/PWNED"}),
    "environment": sweep(hydra__job={"env_set": {"LD_PRELOAD": "x"}}),
    "a config of its own": sweep(defaults=[{"override /hydra/launcher": "evil"}]),
    "a path as a name": sweep(defaults=[{"override /task": "../evil"}]),
    "a path as a value": sweep(hydra__sweeper__params__task="../evil,d2l"),
    "an override as a key": sweep(hydra__sweeper__params={"+hydra.callbacks.x": "{_target_: os.system}"}),
    "a line break in a key": sweep(hydra__sweeper__params={"seeds=2\n+hydra.x": "1"}),
    "a secret": sweep(study__question="${oc.env:HOME}"),
    "a secret in a key": sweep(**{"study__${oc.env:HOME}": 1}),
    "an interpolation in params": sweep(hydra__sweeper__params__seeds="${oc.decode:2}"),
    "another store": sweep(tracking={"uri": "sqlite:////tmp/PWNED.db"}),
    "another journal": sweep(hydra__sweeper__storage="/tmp/PWNED"),
    "a pickle's place": sweep(hydra__sweeper__storage="redis://evil"),
    "cells": sweep(cells=[{"batch_size": 4}]),
    "an escape": sweep(study__question="\x1b[2J"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_sweep_file_is_values_only(attack: str, folder: Path) -> None:
    (folder / "sweeps").mkdir()
    (folder / "evil.yaml").write_text("# @package hydra.callbacks\n" + yaml.safe_dump({"x": TARGET}))
    (folder / "hydra" / "launcher").mkdir(parents=True)
    (folder / "hydra" / "launcher" / "evil.yaml").write_text(yaml.safe_dump(TARGET))
    (folder / "sweeps" / "mine.yaml").write_text("# @package _global_\n" + yaml.safe_dump(ATTACKS[attack]))
    before = sorted(folder.rglob("*"))
    said = here(folder, "run", "-m", "sweeps=mine", status=2, empty=False)
    assert said.count("\n") == 1 and "sweeps/mine" in said and "\x1b" not in said
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "text",
    [
        "# @package hydra.callbacks\nx: {_target_: os.system, command: touch PWNED}\n",
        "- 1\n",
        "!!python/object/apply:os.system [touch PWNED]\n",
        "x: !!python/name:os.system\n",
        "\x00",
        "a: [",
        "3",
    ],
)
def test_a_file_that_is_no_sweep_is_refused(text: str, folder: Path) -> None:
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "mine.yaml").write_text(text)
    said = here(folder, "run", "-m", "sweeps=mine", status=2, empty=False)
    assert said.count("\n") == 1 and [path.name for path in folder.iterdir()] == ["sweeps"]


def test_only_sweeps_are_taken_from_the_working_folder(folder: Path) -> None:
    for group in ("task", "hydra/launcher", "hydra/job_logging", "tracking", "optimizer", "probe", "compute"):
        (folder / group).mkdir(parents=True)
        (folder / group / "evil.yaml").write_text(yaml.safe_dump(TARGET))
        said = here(folder, "run", f"{group}=evil", status=2, empty=False)
        assert ("evil" in said or "there is no such key" in said) and said.count("\n") == 1
    (folder / "evil.yaml").write_text("# @package _global_\n" + yaml.safe_dump(sweep()))
    here(folder, "run", "-m", "sweeps=../evil", status=2, empty=False)
    assert not (folder / "PWNED").exists()


def change(tiny: Path, folder: Path, document: dict[str, Any] | None = None, tags: dict[str, str] | None = None) -> None:
    """Copies a store and changes what a study's or a trial's record says."""
    for name in ("mlflow.db", "mlflow.db-wal"):
        if (tiny / name).exists():
            shutil.copy(tiny / name, folder)
    with closing(sqlite3.connect(folder / "mlflow.db")) as base:
        (uri,) = base.execute("SELECT r.artifact_uri FROM runs r JOIN tags t USING (run_uuid) WHERE t.value = 'study'").fetchone()
        ours = folder / "artifacts"
        if not ours.exists():
            shutil.copytree(uri.removeprefix("file://"), ours)
        base.execute("UPDATE runs SET artifact_uri = ?", (ours.as_uri(),))
        for key, value in (tags or {}).items():
            base.execute("UPDATE tags SET value = ? WHERE key = ?", (value, key))
        base.commit()
    if document is not None:
        (ours / "study.json").write_text(json.dumps(document))


def document_of(tiny: Path) -> dict[str, Any]:
    (file,) = tiny.rglob("study.json")
    loaded: dict[str, Any] = json.loads(file.read_text())
    return loaded


def clean(said: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", said)
    assert "Traceback" not in said


FIELDS = ("texts", "claims and ranges", "axes")


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_in_every_field_of_a_record_stay_text_or_are_refused(
    tiny: Path, folder: Path, text: str, fields: str
) -> None:
    document = document_of(tiny)
    if fields == "texts":
        for key in ("study", "question", "law", "command"):
            document[key] = text
        document["made_by"]["platform"] = text[:4000].encode("ascii", "ignore").decode()
        for cell in document["cells"]:
            cell["label"] = text + cell["label"]
    elif fields == "claims and ranges":
        document["ranges"] = {text: [1, 16]}
        document["claims"] = [{"name": text, "measure": "ratio_slope", "expected": -1}]
    else:
        for cell in document["cells"]:
            cell["scientific"] = {**cell["scientific"], text: text}
    change(tiny, folder, document, {"mlflow.runName": text, "mlflow.note.content": text})
    refused = fields == "axes" or (fields == "texts" and len(text) > 1000)
    for form in ("text", "json", "html"):
        said = here(folder, "report", "--format", form, status=2 if refused else 0)
        said = "\n".join([said, *(part.replace(PLOTLY, "") for part in unpacked(said))]) if form == "html" else said
        clean(said)
        if refused:
            assert said.startswith("lrscale: ") and said.count("\n") == 1
        elif form == "html":
            assert not any(tag in said for tag in ("<script>alert", "<img src=x", "<svg onload"))
    assert not Path("/tmp/PWNED").exists() and {path.name for path in folder.iterdir()} <= {
        "mlflow.db",
        "mlflow.db-wal",
        "mlflow.db-shm",
        "artifacts",
    }


DAMAGES: dict[str, Any] = {
    "newer": lambda d: d["made_by"].update(numbers=str(NUMBERS + 1)),
    "no cells": lambda d: d.update(cells=[]),
    "no maker": lambda d: d.pop("made_by"),
    "a claim that is none": lambda d: d.update(claims=[{"name": "x", "measure": "os.system", "expected": 1}]),
    "a config that is none": lambda d: d["cells"][0]["config"].update(batch_size="4; rm"),
    "a target": lambda d: d["cells"][0]["config"].update(task=TARGET),
    "an objective that is none": lambda d: d.update(objective="__class__"),
    "ranges that are none": lambda d: d.update(ranges={"a": [2, 1]}),
    "a question that is none": lambda d: d.update(question=["x"]),
    "a cell that is none": lambda d: d.update(cells=[3]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_newer_record_is_named(tiny: Path, folder: Path, damage: str) -> None:
    document = document_of(tiny)
    DAMAGES[damage](document)
    change(tiny, folder, document)
    said = here(folder, "report", status=2)
    assert said.startswith("lrscale: ") and said.count("\n") == 1 and "Traceback" not in said


@pytest.mark.parametrize("value", ["", "{", "null", "[1]", '{"a": "b"}', "\x1b[2J", '{"__reduce__": 1}'])
@pytest.mark.parametrize("key", ["lrscale.params", "lrscale.objectives", "lrscale.diverged", "lrscale.trial"])
def test_damaged_tags_of_a_trial_are_named(tiny: Path, folder: Path, key: str, value: str) -> None:
    change(tiny, folder, tags={key: value})
    said = here(folder, "report", status=None)
    clean(said)
    assert said.count("\n") == 1 or "lr_sum*" in said or "No ratio" in said


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"[" * 100_000, b"gASVCg=="])
def test_a_missing_or_damaged_artifact_is_named(tiny: Path, folder: Path, content: bytes | None) -> None:
    change(tiny, folder)
    if content is None:
        (folder / "artifacts" / "study.json").unlink()
    else:
        (folder / "artifacts" / "study.json").write_bytes(content)
    said = here(folder, "report", status=None)
    assert (said.startswith("lrscale: ") and said.count("\n") == 1 and "study.json" in said) or "run " in said


def test_a_store_without_curves_has_the_other_figures(tiny: Path, folder: Path) -> None:
    change(tiny, folder)
    with closing(sqlite3.connect(folder / "mlflow.db")) as base:
        base.execute("DELETE FROM metrics")
        base.commit()
    page = here(folder, "report", "--format", "html")
    assert "Best learning rate against batch size, " in page and "Loss against examples seen, at" not in page


def test_the_ui_answers_this_machine_alone(folder: Path) -> None:
    shutil.copy(_empty_store(), folder / "mlflow.db")
    port = free_port(LOCAL, 6700)
    with _mlflow(f"sqlite:///{folder}/mlflow.db", LOCAL, port) as server:
        assert server.environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
        search = ("POST", "/ajax-api/2.0/mlflow/experiments/search", '{"max_results": 1}')
        asked = {
            ("GET", "/health", "", f"127.0.0.1:{port}", ""): 200,
            (*search, f"127.0.0.1:{port}", ""): 200,
            (*search, "evil.example", ""): 403,
            (*search, f"127.0.0.1.evil.example:{port}", ""): 403,
            (*search, "169.254.169.254", ""): 403,
            (*search, f"127.0.0.1:{port}", "http://evil.example"): 403,
        }
        for (method, path, body, host, origin), status in asked.items():
            connection = http.client.HTTPConnection(LOCAL, port, timeout=30)
            headers = {"Host": host, "Content-Type": "application/json", **({"Origin": origin} if origin else {})}
            connection.request(method, path, body, headers)
            assert connection.getresponse().status == status, (path, host, origin)
            connection.close()
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port), timeout=5):
            pass


def test_no_pickle_is_ever_read() -> None:
    """Neither by name, nor by Optuna's storages: its journal in a file is JSON, the one in redis is not taken."""
    own_forks = ROOT / "src" / "lrscale" / "audit" / "processes.py"  # reads what its own forks wrote to its own pipe
    for file in set((ROOT / "src").rglob("*.py")) - {own_forks}:
        found = re.search(r"\b(pickle|marshal|shelve|eval|exec)\b\s*[.(]|\b(joblib|torch)\.load\b", file.read_text())
        assert not found, (file, found)
    assert re.findall(r"pickle\.load\w*\(.*", own_forks.read_text()) == ["pickle.loads(connection.recv_bytes())"]
    for url in ("redis://localhost", "journal+redis://x", "sqlite+pysqlcipher://x"):
        with pytest.raises(Refusal, match="storage"):
            check_storage(url)
    script = (
        "import sys, pickle\n"
        "def no(*a, **k): raise AssertionError('a pickle was read')\n"
        "from lrscale.commands.cli import main\n"
        "import optuna, torch, mlflow\n"
        "pickle.load = pickle.loads = pickle.Unpickler = torch.load = no\n"
        f"sys.exit(main(['run', '-m', *{TINY!r}]))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, env={**os.environ}, cwd=_fresh())


def _fresh() -> str:
    import tempfile

    return tempfile.mkdtemp(prefix="lrscale-tests-")
