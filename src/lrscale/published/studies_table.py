"""The page of published studies, sweeps/README.md: its tables and its lists of claims that do not hold, made from their files."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lrscale.errors import Refusal
from lrscale.estimate.intervals import Interval
from lrscale.files import home, restore_folders, write_whole
from lrscale.published.compare import verdict_of
from lrscale.published.markdown import in_code, in_markdown
from lrscale.spec import is_own
from lrscale.study.claims import quantity_name
from lrscale.study.meanings import meaning
from lrscale.study.statements import SAME_RUNS, measured_in_words
from lrscale.study.verdict import CANNOT_TELL, FAILS, HOLDS, Bound

RESULTS = Path("sweeps") / "results"
"""The folder of all published studies, relative to the working folder or to the package."""
MARKERS = re.compile(r"(<!-- studies -->\n).*?(<!-- /studies -->)", re.S)
HEAD = (
    "| question,&nbsp;with&nbsp;command&nbsp;and&nbsp;time | law | number&nbsp;measured | claims that&nbsp;hold |\n"
    "|---|---|---|---|\n"
)
"""The first rows of each table. Spaces that do not break keep columns wide enough for a command and for an interval."""
THEMES: dict[str, tuple[str, ...]] = {
    "The main result": ("quickstart", "headline"),
    "The ratio of sum to mean": ("adam", "eps", "digits", "fashion_mnist"),
    "How the best lr goes with B": (
        *("epochs", "momentum", "batch_rules", "schedules"),
        *("fixed_steps", "steps_to_target", "regimes"),
        *("turn_over", "turn_over_momentum", "cnn_turn_over", "cnn_turn_over_momentum"),
    ),
    "Models of one's own": ("cnn", "chars", "batch_rules_chars"),
    "Stability and noise": ("stability", "momentum_edge", "noise_scale", "curvature", "curvature_edge", "cnn_curvature"),
    "Exact algebra": ("translate", "homogeneity", "gradient_scale", "last_batch"),
}
"""The headings, and the studies below each."""
OTHERS = "Other studies"
"""The heading for studies that no theme names."""
LISTS = {FAILS: "Claims that fail", CANNOT_TELL: "Claims that cannot be told"}
"""The headings of the lists of claims that do not hold, by their verdict."""
NONE_FAILS = "No claim fails.\n"
NUMBER_NAMES: dict[str, str] = {
    "ratio_slope": "exponent",
    "slope": "exponent",
    "steps_slope": "exponent",
    "slope_of": "exponent",
    "theory": "lr*",
    "b_c": "B_c",
    "b_crit": "B_crit",
    "form_residual": "rms residual",
    "trade_off_residual": "rms residual",
}
"""What a number is called, by the claim's measure. For a probe it is the quantity in plain words."""

_TOO_LATE = (
    "10 % of 20 epochs is probably too late. In the study curvature, lr lam_max is largest at 1 % to 3 % of training, where "
    "B_simple is 7 to 16 with 256 hidden units. That was seen after the claim was fixed, and cnn_turn_over tests it."
)
REASONS: dict[tuple[str, str], str] = {
    ("turn_over", "B_c is within a factor of 2 of the predicted 75.3 (hidden 256)"): _TOO_LATE,
    ("turn_over_momentum", "B_c is 6 to 57 times the predicted 75.3 (hidden 256)"): (
        "The prediction for SGD is too large, see turn_over. Of the B_c of SGD that turn_over measured, 7.7, it is 11 times, "
        "which is in the range."
    ),
    ("eps", "lr_sum*/lr_mean* is 1 at every B (eps 1)"): (
        "This is what the study shows: eps was left alone under sum, so sum and mean are different optimizers. "
        "With eps times B they are the same runs (study adam)."
    ),
    ("batch_rules_chars", "at 16 times the batch it is at most half as far off as the linear rule"): (
        "At 16 sentences noise no longer dominates: B_simple, measured after the claim was fixed, is 17 to 29 from a tenth of "
        "the training on, and less before. There the square root rule is too slow, and the linear one too fast."
    ),
    ("batch_rules_chars", "it is at most half as far off as with AdamW's weight decay left alone"): (
        "Decay does little here: half of it changes the loss curve at B = 1 by at most 0.04 in ln, less than the rule's own "
        "distance of 0.11. With decay left alone the distance is even a little smaller, 0.08. In batch_rules decay does "
        "more, and the claim holds."
    ),
}
"""Why a claim fails, by study and claim."""
UNKNOWN = "no reason known yet"


class PublishedFiles(NamedTuple):
    """A published study's folder, and what its record.json and report.json hold."""

    folder: str
    record: Mapping[str, Any]
    report: Mapping[str, Any]

    def claims(self, verdict: str) -> list[Mapping[str, Any]]:
        """Returns the claims with this verdict, as the report has them."""
        return [claim for claim in self.report["claims"] if verdict_of(claim) == verdict]


def folders() -> tuple[Path, Path]:
    """Returns the folders of published studies; the first has precedence."""
    restore_folders(RESULTS)
    return (RESULTS, home() / RESULTS)


def write_table(readme: Path, results: Path) -> bool:
    """Rewrites the part of a page between its markers; returns False where there is no such page or no markers."""
    if not readme.is_file() or not MARKERS.search(text := readme.read_text("utf-8")):
        return False
    made = studies_page(results)
    write_whole(readme, MARKERS.sub(lambda found: f"{found[1]}{made}{found[2]}", text))
    return True


def studies_page(results: Path) -> str:
    """Returns the generated part of the page: a table for each theme, then the claims that fail or cannot be told."""
    themes = [(theme, studies) for theme, studies in by_theme(read_studies(results)) if studies]
    tables = "".join(f"### {theme}\n\n{HEAD}{''.join(map(row, studies))}\n" for theme, studies in themes)
    published = [study for _, studies in themes for study in studies]
    items = {
        verdict: "".join(listed_item(study, claim) for study in published for claim in study.claims(verdict)) for verdict in LISTS
    }
    lists = "".join(f"## {LISTS[name]}\n\n{text or NONE_FAILS}\n" for name, text in items.items() if text or name == FAILS)
    return f"\n{tables}{lists}"


def read_studies(results: Path) -> dict[str, PublishedFiles]:
    """Returns the published studies by name, in alphabetical order."""
    folders = sorted(file.parent for file in results.glob("*/record.json"))
    return {f.name: PublishedFiles(f.name, _read(f / "record.json"), _read(f / "report.json")) for f in folders}


def _read(file: Path) -> Any:
    return json.loads(file.read_text("utf-8"))


def all_published() -> dict[str, PublishedFiles]:
    """Returns what is published in the working folder or in the package, by name, in the order of the page.

    Raises:
      Refusal: a file is not as `lrscale publish` writes it.
    """
    try:
        found = {name: study for folder in reversed(folders()) for name, study in read_studies(folder).items()}
        return {study.folder: study for _, studies in by_theme(found) for study in studies}
    except (OSError, ValueError, RecursionError) as error:
        raise Refusal(f"{RESULTS} must hold the files of published studies: {type(error).__name__}, {error!s:.200}") from None


def by_theme(studies: Mapping[str, PublishedFiles]) -> Iterator[tuple[str, list[PublishedFiles]]]:
    """Yields each theme with its published studies, and last the studies without a theme."""
    for theme, names in THEMES.items():
        yield theme, [studies[name] for name in names if name in studies]
    known = {name for names in THEMES.values() for name in names}
    yield OTHERS, [study for name, study in studies.items() if name not in known]


def row(study: PublishedFiles) -> str:
    """Returns a study's row: its question, command and time; the law; the first claim's number; how many claims hold."""
    record = study.record
    question, law = in_markdown(record["question"] or record["study"]), in_markdown(record["law"] or "-")
    repeat = f"{in_code(' '.join(reproducing(study)))}, {_time(record['seconds'])}"
    return f"| {question}<br>{repeat} | {law} | {measured_cell(study)} | {_held(study)} |\n"


def reproducing(study: PublishedFiles) -> list[str]:
    """Returns the words of the command that reproduces a study."""
    return ["lrscale", "reproduce", study.folder, *(word for file in own_files(study.record) for word in ("--trust", file))]


def own_files(record: Mapping[str, Any]) -> list[str]:
    """Returns the files of code that a published study runs, as its cells name them."""
    configs = [cell["config"] for cell in record.get("cells", ())]
    names = [str(config.get(group, {}).get("name")) for config in configs for group in ("task", "optimizer")]
    return sorted({name.rpartition(":")[0] for name in names if is_own(name)})


def _time(seconds: float) -> str:
    return f"{seconds:.0f}&nbsp;s" if seconds < 60 else f"{seconds / 60:.0f}&nbsp;min"


def measured_cell(study: PublishedFiles) -> str:
    """Returns the number of a study's first claim. Of several families of cells it is the worst, or the least and the most."""
    for claim in study.record["claims"][:1]:
        verdicts = [v for v in _verdicts_of(claim, study.report["claims"]) if v["measured"] is not None]
        if verdicts:
            number = in_markdown(_number(claim, sorted(verdicts, key=lambda verdict: float(verdict["measured"]))))
            return number.replace(" [", "<br>[")
    return "-"


def _number(claim: Mapping[str, Any], verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Returns what was measured and its name, given a claim's verdicts from the least to the most."""
    measure = claim["measure"]
    least, most = (measured_words(measure, verdict) for verdict in (verdicts[0], verdicts[-1]))
    if measure in ("deviation", "log_deviation") and verdicts[-1]["measured"] == 0:
        return "exact"
    if least == most == ", ".join(SAME_RUNS):
        return f"{least}, {len(verdicts)} cases" if len(verdicts) > 1 else least
    name = NUMBER_NAMES.get(measure) or meaning(quantity_name(claim))
    if measure == "coverage":
        return f"{most} hold {name}"
    if len(verdicts) == 1:
        return f"{name} {most}"
    number = most if measure == "theory" else f"{least.partition(' [')[0]} to {most.partition(' [')[0]}"
    return f"{name} {number}, {len(verdicts)} cases"


def measured_words(measure: str, claim: Mapping[str, Any]) -> str:
    """Returns what was measured for a claim in words."""
    value = claim["measured"]
    return measured_in_words(
        measure, None if value is None else Interval(value, *(claim["ci"] or (value, value))), bound_of(claim)
    )


def _verdicts_of(claim: Mapping[str, Any], verdicts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the verdicts of one claim, one for each family of cells."""
    return [v for v in verdicts if v["name"] == claim["name"] or v["name"].startswith(f"{claim['name']} (")]


def _held(study: PublishedFiles) -> str:
    """Returns how many claims hold, as in `4 of 4`, with links to the lists below where some do not."""
    links = ""
    for verdict, heading in LISTS.items():
        if count := len(study.claims(verdict)):
            words = {FAILS: "fails" if count == 1 else "fail", CANNOT_TELL: "cannot be told"}[verdict]
            links += f"<br>[{count} {words}](#{heading.lower().replace(' ', '-')})"
    return f"{len(study.claims(HOLDS))} of {len(study.report['claims'])}{links}"


def listed_item(study: PublishedFiles, verdict: Mapping[str, Any]) -> str:
    """Returns an item of a list: study, family, claim, what was measured and expected, and the reason.

    The reason of a claim that fails is written by hand, in REASONS. That of a claim that cannot be told is in the report.
    """
    claim = next(c for c in study.record["claims"] if _verdicts_of(c, [verdict]))
    family = verdict["name"].removeprefix(claim["name"]).removeprefix(" (").removesuffix(")")
    where = f"**{in_code(study.folder)}**{f', {in_markdown(family)}' if family else ''}"
    measured, expected = in_markdown(measured_words(claim["measure"], verdict)), in_markdown(bound_of(verdict).words)
    if verdict_of(verdict) == CANNOT_TELL:
        reason = f"{verdict['reason']}; {verdict['way_out']}"
    else:
        reason = REASONS.get((study.folder, verdict["name"]), UNKNOWN)
    numbers = f"Measured: {measured}. Expected: {expected}."
    return f"- {where}: {in_markdown(claim['name'])}.<br>{numbers}<br>*Reason:* {in_markdown(reason)}\n"


def bound_of(verdict: Mapping[str, Any]) -> Bound:
    """Returns the bound of a claim in a report."""
    return Bound(*(verdict[key] for key in Bound._fields))
