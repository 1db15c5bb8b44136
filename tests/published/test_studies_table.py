"""The page of studies: what a row and an item say, and that a stranger's texts stay text."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from lrscale.published.markdown import MOST_CHARACTERS, in_markdown
from lrscale.published.studies_table import REASONS, THEMES, PublishedFiles, listed_item, measured_cell, row, studies_page
from tests.security.test_attack import HOSTILE

MARKUP = [
    "[click](http://evil.example)",
    "![pixel](//evil.example/x.png)",
    "[1](evil)",
    "[1, 2](evil) [1, 2][evil]",
    "<http://evil.example> <a@evil.example>",
    "https://evil.example www.evil.example WWW.evil.example a@evil.example mailto:a@evil.example",
    "**bold** *it* __bold__ _it_ ~~gone~~ ~gone~ `code` a*b*c lr*b*",
    "| a | b |\n|---|---|\n| c | d |",
    "# heading\n\n- item\n\n1. item\n\n> quote\n\n---",
    "a \\| b \\",
    "\\[click](evil) \\\\[click](evil)",
    "&lt;script&gt; &#91;x&#93;(evil)",
    "<!-- /studies --> <details> </td></tr></table>",
    "$x$ $$x$$ $`x`$ :octocat: @someone",
    "```\ncode\n```",
    "arXiv 1812.06162](http://evil.example)",
    "[arXiv 1812.06162](http://evil.example)",
    "lr_sum*/lr_mean* * 2 ** 3",
]
ADDRESS = re.compile(r"https://arxiv\.org/abs/\d{4}\.\d{4,5}")
PLAIN = re.compile(r"</?(span|sub|sup)>|<br>")


def verdict(name: str, measured: float | None, holds: bool | None, ci: list[float] | None = None) -> dict[str, Any]:
    """A claim of a report; `holds` is None where it cannot be told."""
    bounds = {"expected": -1.0, "tolerance": 0.1, "at_least": None, "at_most": None}
    told = {True: "holds", False: "fails", None: "cannot tell"}[holds]
    texts = {"verdict": told, "reason": "lr_sum* is wide", "way_out": "raise seeds to 32"}
    return {"name": name, "measured": measured, "ci": ci, **bounds, **texts}


def study(
    claims: list[dict[str, Any]], verdicts: list[dict[str, Any]], *, name: str = "mine", text: str = "Why?", seconds: float = 61
) -> PublishedFiles:
    record = {"study": text, "question": text, "law": text, "seconds": seconds, "claims": claims}
    return PublishedFiles(name, record, {"claims": verdicts})


def one(measure: str, *verdicts: dict[str, Any], **claim: str) -> PublishedFiles:
    return study([{"name": "c", "measure": measure, **claim}], list(verdicts))


def tokens(text: str) -> Iterator[Token]:
    """All tokens of a Markdown text as GitHub reads it, but for addresses without markup."""
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        yield from (token, *(token.children or ()))


def write(results: Path, files: PublishedFiles) -> None:
    (results / files.folder).mkdir(parents=True)
    (results / files.folder / "record.json").write_text(json.dumps(files.record))
    (results / files.folder / "report.json").write_text(json.dumps(files.report))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (one("slope", verdict("c", 0.01, True, [-0.01, 0.03])), "exponent 0.01<br>[-0.01, 0.03]"),
        (one("slope", verdict("c (a)", 0.1, True), verdict("c (b)", -0.2, False)), "exponent -0.2 to 0.1, 2 cases"),
        (one("theory", verdict("c (a)", 0.0, True), verdict("c (b)", 0.3, True)), "lr* within 35 %, 2 cases"),
        (one("b_c", verdict("c", 15.0, True, [10, 25])), "B<sub>c</sub> 15.00<br>[10.00, 25.00]"),
        (one("deviation", verdict("c", 0.0, True), quantity="difference"), "exact"),
        (one("deviation", verdict("c", 5.4e-6, True), quantity="p_first"), "p of the first update within 5.4×10<sup>-6</sup>"),
        (
            one("coverage", verdict("c", 0.9375, True), quantity="b_simple"),
            "94 % of intervals hold noise scale B<sub>simple</sub>",
        ),
        (one("slope", verdict("c", None, False)), "-"),
        (study([], []), "-"),
    ],
)
def test_a_row_says_what_was_measured_in_few_words(files: PublishedFiles, says: str) -> None:
    assert measured_cell(files) == says


def test_a_row_has_question_command_time_law_and_count() -> None:
    claims = [{"name": "level*", "measure": "slope"}, {"name": "lr*", "measure": "theory"}]
    verdicts = [verdict("level*", -1.0, True), verdict("lr* (sgd)", 0.05, True), verdict("lr* (adam)", 0.3, False)]
    files = study(claims, verdicts, text="lr_sum* = lr_mean*/c^p (arXiv 1706.02677)")
    formula = "lr*<sub>sum</sub> = lr*<sub>mean</sub>/c<sup>p</sup> ([arXiv 1706.02677](https://arxiv.org/abs/1706.02677))"
    verdicts.append(verdict("lr* (adagrad)", -0.95, None, [-1.2, -0.8]))
    files = study(claims, verdicts, text="lr_sum* = lr_mean*/c^p (arXiv 1706.02677)")
    held = "2 of 4<br>[1 fails](#claims-that-fail)<br>[1 cannot be told](#claims-that-cannot-be-told)"
    assert row(files) == f"| {formula}<br>`lrscale reproduce mine`, 1&nbsp;min | {formula} | exponent -1 | {held} |\n"
    assert listed_item(files, verdicts[-2]) == (
        "- **`mine`**, adam: lr*.<br>Measured: within 35 %. Expected: -1 ± 0.1.<br>*Reason:* no reason known yet\n"
    )


def test_studies_stand_under_their_theme_in_its_order_and_strangers_last(tmp_path: Path) -> None:
    for name in ("adam", "headline", "quickstart", "aaa"):
        write(tmp_path, study([], [], name=name))
    page = studies_page(tmp_path)
    found = re.findall(r"^### (.*)$|`lrscale reproduce (\w+)`", page, re.M)
    assert [theme or name for theme, name in found] == [
        "The main result", "quickstart", "headline", "The ratio of sum to mean", "adam", "Other studies", "aaa",
    ]  # fmt: skip
    assert page.endswith("## Claims that fail\n\nNo claim fails.\n\n")
    assert len({name for names in THEMES.values() for name in names}) == sum(map(len, THEMES.values()))


def test_a_reason_is_given_to_the_claim_it_belongs_to_alone() -> None:
    (name, claim), reason = next(iter(REASONS.items()))
    assert in_markdown(reason) in listed_item(
        study([{"name": claim, "measure": "slope"}], [], name=name), verdict(claim, 0, False)
    )
    for other in (study([{"name": claim, "measure": "slope"}], [], name="mine"), study([{"name": "c", "measure": "slope"}], [])):
        assert "no reason known yet" in listed_item(other, verdict(other.record["claims"][0]["name"], 0, False))


@pytest.mark.parametrize("text", [*HOSTILE, *MARKUP])
@pytest.mark.parametrize("folder", ["mine", "a`|<b>"])
def test_a_strangers_texts_make_no_markup(text: str, folder: str, tmp_path: Path) -> None:
    claims = [{"name": text, "measure": "deviation", "quantity": text}]
    write(tmp_path, study(claims, [verdict(f"{text} ({text})", 0.5, False)], name=folder, text=text))
    page = studies_page(tmp_path)
    assert page.count("\n") == 11 and "`" not in page.replace("**`mine`**", "").replace("`lrscale reproduce mine`", "").replace(
        "\\`", ""
    )
    kinds: dict[str, int] = {}
    for token in tokens(page):
        kinds[token.type] = kinds.get(token.type, 0) + 1
        assert token.type != "html_inline" or PLAIN.fullmatch(token.content), token.content
        if token.type == "link_open":
            assert ADDRESS.fullmatch(str(token.attrs["href"])) or token.attrs["href"] == "#claims-that-fail"
    made = {"table_open": 1, "tr_open": 2, "th_open": 4, "td_open": 4, "bullet_list_open": 1, "list_item_open": 1}
    assert {kind: kinds.get(kind) for kind in made} == made
    assert kinds["heading_open"] == 2 and kinds["em_open"] == 1 and kinds["strong_open"] == 1
    assert not {"image", "s_open", "html_block", "fence", "hr", "blockquote_open", "code_block"} & set(kinds)
    bare = ADDRESS.sub("", page)
    assert not re.search(r"\w://\w|www\.|\w@\w|(?<!<span>)\$|:\w+:", bare, re.I)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("eta_max, lam_max, kappa, beta, sigma^2", "η<sub>max</sub>, λ<sub>max</sub>, κ, β, σ²"),
        ("tr(Sigma)/|G|^2 at B << N, c^-1.5 <= 2", "tr(Σ)/\\|G\\|² at B ≪ N, c<sup>-1.5</sup> ≤ 2"),
        ("a beta test of metadata at x_y", "a β test of metadata at x_y"),
        ("15 [10, 25]", "15 [10, 25]"),
        ("x" * 2 * MOST_CHARACTERS, "x" * MOST_CHARACTERS + "…"),
    ],
)
def test_formulas_become_readable(text: str, made: str) -> None:
    assert in_markdown(text) == made
