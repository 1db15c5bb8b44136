"""The meanings of a probe's quantities: each that a claim names has one."""

import yaml

from lrscale.study.meanings import meaning
from tests.configs import ROOT


def test_each_quantity_of_a_claim_has_a_meaning() -> None:
    claims = [c for file in (ROOT / "sweeps").glob("*.yaml") for c in yaml.safe_load(file.read_text())["study"].get("claims", ())]
    named = {claim[key] for claim in claims for key in ("quantity", "over") if claim.get(key)}
    assert len(named) > 10 and all(meaning(name) != name for name in named)
