"""Audits of the gallery in tests/cases: every known mistake is named with its number, and no right step is blamed."""

import re

import pytest
import torch

from tests.cases import Expected
from tests.gallery import (
    FOLDER,
    GROUPS,
    PAGE,
    RANKS,
    SLOW,
    TOLERANCES,
    audit,
    audited,
    build,
    complaints,
    exhibit,
    in_bfloat16,
    in_float32,
    names,
    page,
    redraw,
)

CASES = list(names())
SMALL = list(names(slow=False))
KINDS_IN_BFLOAT16 = {("two_heads", "wrong"): "coupled loss"}
"""So few digits do not tell two means over different counts from a loss that compares examples."""
REDRAWN = range(1, 6)
"""Seeds of other data and weights: more than 300 draws in all."""


def test_each_file_is_shown_once_and_has_a_right_step() -> None:
    files = [name for group in GROUPS.values() for name in group]
    assert sorted(files) == sorted(file.stem for file in FOLDER.glob("*.py") if not file.stem.startswith("__"))
    assert set(GROUPS) >= SLOW
    for name in files:
        assert exhibit(name).functions("make_right" if name in GROUPS[RANKS] else "right"), name


def test_public_places_can_be_followed() -> None:
    for name in (name for group in GROUPS.values() for name in group):
        for place in exhibit(name).met.split(", "):
            assert re.fullmatch(r"|many|[\w.-]+/[\w.-]+#\d+", place), f"{name}: {place}"


@pytest.mark.parametrize(("name", "function"), CASES)
def test_an_audit_names_the_mistake_and_leaves_the_right_step_alone(name: str, function: str) -> None:
    assert not complaints(build(name, function), audited(name, function)), audited(name, function)


@pytest.mark.parametrize("name", [name for name, function in CASES if function == "wrong"])
def test_a_mistake_would_not_pass_for_the_right_step(name: str) -> None:
    assert complaints(build(name, "right"), audited(name, "wrong"))


@pytest.mark.parametrize("name", GROUPS[RANKS])
@pytest.mark.parametrize("form", ["wrong", "right"])
def test_an_audit_over_two_ranks_names_the_mistake(name: str, form: str) -> None:
    expected: Expected = getattr(exhibit(name).module, form.upper())
    found = audited(name, f"make_{form}")
    assert not complaints(expected, found), found


@pytest.mark.parametrize("name", ["sum_of_micro_batch", "times_window", "divided_twice"])
def test_one_mistake_is_one_finding(name: str) -> None:
    assert sum(finding.is_mistake for finding in audited(name, "wrong").findings) == 1, audited(name, "wrong")


@pytest.mark.parametrize(("name", "function"), CASES)
def test_float32_raises_no_alarm_and_hides_no_mistake(name: str, function: str) -> None:
    case = build(name, function, dtype=torch.float32)
    found = audit(case, in_float32)
    assert not complaints(case, found, TOLERANCES["float32"]), found


@pytest.mark.parametrize(("name", "function"), [case for case in CASES if case[1] != "wrong_in_one"])
def test_autocast_to_bfloat16_raises_no_alarm_and_hides_no_mistake(name: str, function: str) -> None:
    """What is only said, and not blamed, may be finer than this precision."""
    case = build(name, function, dtype=torch.float32)
    case = case._replace(kind=KINDS_IN_BFLOAT16.get((name, function), case.kind))
    found = audit(case, in_bfloat16)
    assert not complaints(case, found, TOLERANCES["bfloat16"]), found


def test_other_data_and_weights_are_judged_alike() -> None:
    count, wrong = redraw(REDRAWN)
    assert count >= 300
    assert len(wrong) <= count / 100, wrong
    assert not any(" right" in line for line in wrong), wrong


def test_the_page_is_what_the_files_and_audits_make() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.cases"
