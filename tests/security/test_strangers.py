"""A stranger's study, given to `lrscale reproduce` and `publish`: it runs nothing, writes nowhere else, marks nothing up."""

import copy
import csv
import io
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lrscale.published import reproduce
from lrscale.published.files import NUMBERS_IN, TABLE
from tests.program import STUDY, here
from tests.security.test_attack import HOSTILE, TARGET, change, clean, document_of

VALUES = [*HOSTILE, TARGET, [TARGET], None, -1, 1e308, True, "", "mean; touch PWNED", "__import__('os').system('touch PWNED')"]
README = "before\n<!-- studies -->\n<!-- /studies -->\nafter\n"


@pytest.fixture(scope="module")
def published(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    change(tiny, folder)
    here(folder, "publish", STUDY)
    return folder / "sweeps" / "results" / STUDY


@pytest.fixture
def place(published: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the published files, to spoil; running the study gives what it gave before."""
    ran = read_back(published)
    monkeypatch.setattr(reproduce, "_conduct", lambda plan, setup, rounds: ran)
    shutil.copytree(published, folder / "sweeps" / "results" / STUDY)
    return folder / "sweeps" / "results" / STUDY


def read_back(place: Path) -> dict[str, str]:
    return {name: (place / name).read_text() for name in NUMBERS_IN}


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in plain values, of lists the first."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from paths(inner, (*path, key))
    elif isinstance(value, list) and value:
        yield (*path, 0)
        yield from paths(value[0], (*path, 0))


def put(value: Any, path: tuple[Any, ...], new: Any, as_key: bool) -> Any:
    """A copy with another value at a place, or beside it under a key of its own."""
    made = inner = copy.deepcopy(value)
    for key in path[:-1]:
        inner = inner[key]
    if as_key and isinstance(inner, dict):
        inner[str(new)] = inner[path[-1]]
    else:
        inner[path[-1]] = new
    return made


def reproduced(folder: Path) -> int:
    """Runs `lrscale reproduce`: refused in one line with nothing written, or run and compared; returns 2 or 0."""
    before = sorted(folder.rglob("*"))
    said = here(folder, "reproduce", STUDY, status=None)
    clean(said)
    refused = not (folder / "studies").exists()
    if refused:
        assert said.startswith("lrscale: ") and said.count("\n") == 1, said
    else:
        assert "promise" in said and ("reproduced" in said or "did not reproduce" in said), said
        shutil.rmtree(folder / "studies")
    assert sorted(folder.rglob("*")) == before and not Path("/tmp/PWNED").exists()
    return 2 if refused else 0


@pytest.mark.parametrize("file", ["record.json", "report.json"])
def test_hostile_values_and_keys_in_every_field_are_refused_or_stay_values(folder: Path, place: Path, file: str) -> None:
    whole = json.loads((place / file).read_text())
    ended: dict[int, int] = {0: 0, 2: 0}
    for i, path in enumerate(paths(whole)):
        for value in (VALUES[i % len(VALUES)], VALUES[(7 * i + 3) % len(VALUES)]):
            for as_key in (False, True):
                (place / file).write_text(json.dumps(put(whole, path, value, as_key)))
                ended[reproduced(folder)] += 1
    assert min(ended.values()) > 20, ended


def test_hostile_values_in_every_column_are_refused_or_stay_values(folder: Path, place: Path) -> None:
    head, *rows = list(csv.reader(io.StringIO((place / "trials.csv").read_text())))
    for value in map(str, VALUES):
        for column in range(len(head)):
            text = io.StringIO()
            csv.writer(text).writerows([head, [*rows[0][:column], value, *rows[0][column + 1 :]], *rows[1:]])
            (place / "trials.csv").write_text(text.getvalue())
            reproduced(folder)


FIELDS = ("study", "question", "law", "command", "claims", "ranges", "made_by", "label", "scientific")
PAIRS = [(field, text) for i, field in enumerate(FIELDS) for j, text in enumerate(HOSTILE) if (i + 2 * j) % 5 == 0]


@pytest.mark.parametrize(("field", "text"), PAIRS)
def test_a_strangers_store_is_published_as_text_or_refused(tiny: Path, folder: Path, field: str, text: str) -> None:
    document = document_of(tiny)
    if field in ("label", "scientific"):
        document["cells"][0][field] = text if field == "label" else {text: text}
    else:
        claim = {"name": text, "measure": "ratio_slope", "expected": -1}
        document[field] = {"claims": [claim], "ranges": {text: [1, 16]}, "made_by": {"numbers": "1", "x": text}}.get(field, text)
    change(tiny, folder, document)
    with closing(sqlite3.connect(folder / "mlflow.db")) as base:
        base.execute("UPDATE experiments SET name = ? WHERE experiment_id != 0", (text,) if field == "study" else (STUDY,))
        base.commit()
    (folder / TABLE).parent.mkdir()
    (folder / TABLE).write_text(README)
    before = sorted(folder.rglob("*"))
    said = here(folder, "publish", status=None)
    clean(said)
    new = {path for path in folder.rglob("*") if path not in before and not path.name.startswith("mlflow.db-")}
    if said.startswith("lrscale: "):
        assert said.count("\n") == 1 and new == set() and (folder / TABLE).read_text() == README
    else:
        assert all(path.is_relative_to(folder / "sweeps") for path in new)
        (figure,) = folder.rglob("figure.svg")
        for written in (figure.read_text(), (folder / TABLE).read_text()):
            assert not any(tag in written for tag in ("<script>alert", "<img src=x", "<svg onload")), field
            clean(written)
        verdicts = [claim["verdict"] for claim in json.loads(figure.with_name("report.json").read_text())["claims"]]
        page, untold = (folder / TABLE).read_text(), verdicts.count("cannot tell")
        assert page.count("\n") == README.count("\n") + 10 + max(1, verdicts.count("fails")) + (untold and untold + 3)
        assert len([line for line in page.splitlines() if line.startswith("|")]) == 3
    assert not Path("/tmp/PWNED").exists()


@pytest.mark.parametrize("name", ["..", ".", "a/..", "../../x", "/tmp/PWNED", "x" * 300, "ü", "CON?"])
def test_a_study_is_published_under_a_name_that_a_folder_can_have(tiny: Path, folder: Path, name: str) -> None:
    change(tiny, folder, {**document_of(tiny), "study": name})
    (folder / "sweeps" / "results").mkdir(parents=True)
    (folder / "sweeps" / "mine.yaml").write_text("kept")
    said = here(folder, "publish", status=2)
    assert said.count("\n") == 1 and "STUDY" in said
    assert (folder / "sweeps" / "mine.yaml").read_text() == "kept" and not any((folder / "sweeps" / "results").iterdir())


def test_links_in_the_way_are_replaced_or_refused_and_not_followed(tiny: Path, folder: Path) -> None:
    """As a stranger's repository may hold them."""
    change(tiny, folder)
    victims = [folder / name for name in ("a", "b", "c")]
    for victim in victims[:2]:
        victim.write_text("kept")
    victims[2].mkdir()
    (victims[2] / "record.json").write_text("kept")
    results = folder / "sweeps" / "results"
    results.mkdir(parents=True)
    (results / STUDY).symlink_to(victims[2])
    assert "STUDY" in here(folder, "publish", status=2)
    (results / STUDY).unlink()
    (results / STUDY).mkdir()
    (results / STUDY / "report.json").symlink_to(victims[0])
    (folder / TABLE).symlink_to(victims[1])
    here(folder, "publish")
    assert json.loads((results / STUDY / "report.json").read_text())["study"] == STUDY
    assert [(v / "record.json" if v.is_dir() else v).read_text() for v in victims] == ["kept"] * 3
