"""The code that an override names is trusted, as Hydra reads the override."""

from pathlib import Path

import pytest

from lrscale.errors import Refusal
from lrscale.hydra_app.app import trust_typed
from lrscale.tasks import source


@pytest.mark.parametrize(
    ("override", "files"),
    [
        ("task=mine.py:net", ["mine.py"]),
        ("task=mine.py\\:net", ["mine.py"]),
        ("+task=mine.py:net,other.py:net", ["mine.py", "other.py"]),
        ('task="a net.py:net"', ["a net.py"]),
        ("task=a\\ net.py:net", ["a net.py"]),
        ("task=choice('a net.py:net',d2l)", ["a net.py"]),
        ("task=d2l", []),
        ("name=mine.py:net", []),
    ],
)
def test_the_files_of_choices_are_trusted(override: str, files: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_TRUSTED", {})
    for name in ("mine.py", "other.py", "a net.py"):
        _ = (folder / name).write_text(f"def net(): ...  # {name}\n")
    trust_typed([override])
    trusted = [Path(str(file)) for known in source._TRUSTED.values() for file in known]
    assert sorted(file.relative_to(folder) if file.is_absolute() else file for file in trusted) == sorted(map(Path, files))


def test_a_choice_without_a_file_is_refused(folder: Path) -> None:
    with pytest.raises(Refusal, match=r"must name a file that exists, got 'a net\.py:net'"):
        trust_typed(['task="a net.py:net"'])
