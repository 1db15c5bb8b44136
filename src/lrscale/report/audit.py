"""An audit of a training step as text for a terminal, and as JSON."""

import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from lrscale.audit.finding import Audit, Finding

VERDICT_COLOURS = {True: "green", False: "red", None: "yellow"}
"""The colour of the verdict, by `Audit.ok`."""
JSON_NAMES = {
    "c(2n)/c(n)": "c_at_2n_over_c_at_n",
    "c(4n)/c(n)": "c_at_4n_over_c_at_n",
    "decay(2n)/decay(n)": "decay_at_2n_over_decay_at_n",
    "given / raw": "given_over_raw",
    "window of j / whole": "window_of_j_over_whole",
    "still part / growing part": "still_part_over_growing_part",
    "ranks / one process": "ranks_over_one_process",
}
"""The keys in JSON of numbers whose names are formulas. Of other names the words are joined by `_`."""
KIND_TITLES = {"c": "not the reference's c"}
"""The titles of kinds whose name alone does not speak."""
NARROWEST, WIDEST = 60, 80
"""The least and the most columns of the text."""


def audit_json(audit: Audit) -> dict[str, Any]:
    """Returns an audit as one document, with plain values; nan and infinity are None.

    verdict   the answer in one sentence
    ok        true, false, or null where the audit could not be made
    runs      how many times the step was run
    findings  a list of `kind`, `sentence`, `is_mistake`, `translate`, `fix` and `numbers`
    unknown   a list of sentences: what cannot be told, and what to pass
    numbers   all that was measured, such as `growth`, `c`, `p`, `accumulation_factor`, `mean_over`, `clip_threshold`,
              `clip_active`, `groups` (a list, one of each group of each optimizer) and `sizes`: a list of `examples` and
              `gradient_norm`

    Keys are words joined by `_`. A key is there where its number was measured.
    """
    findings = [
        {
            "kind": finding.kind,
            "sentence": finding.sentence,
            "is_mistake": finding.is_mistake,
            "translate": finding.translate,
            "fix": finding.fix,
            "numbers": _plain(finding.numbers),
        }
        for finding in audit.findings
    ]
    numbers = _plain({key: value for key, value in audit.numbers.items() if key != "sizes"})
    if "sizes" in audit.numbers:
        sizes = audit.numbers["sizes"]
        numbers["sizes"] = [{"examples": n, "gradient_norm": _plain(norm)} for n, norm in sizes.items()]
    document = {"verdict": audit.verdict, "ok": audit.ok, "runs": audit.runs, "findings": findings}
    return document | {"unknown": list(audit.unknown), "numbers": numbers}


def _plain(value: Any) -> Any:
    """Returns nested values with plain types and keys, as JSON has them."""
    if isinstance(value, Mapping):
        return {_key(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _key(name: Any) -> str:
    """Returns the key in JSON of a number's name."""
    return JSON_NAMES.get(name) or re.sub(r"\W+", "_", str(name)).strip("_")


def in_few_words(audit: Audit) -> str:
    """Returns the verdict as a title.

    Example:
      >>> in_few_words(Audit((Finding("sum", "", is_mistake=True), Finding("clip", ""))))
      'Not invariant: sum'
      >>> in_few_words(Audit())
      'Invariant to how examples are grouped'
    """
    if audit.ok:
        return "Invariant to how examples are grouped"
    found = [finding.kind for finding in audit.findings if finding.is_mistake or audit.ok is None]
    kinds = ", ".join(dict.fromkeys(KIND_TITLES.get(kind, kind) for kind in found))
    return f"Not invariant: {kinds}" if audit.ok is False else f"Not audited: {kinds}"


def show_audit(audit: Audit, console: Console) -> None:
    """Prints an audit: the verdict, what was found, what cannot be told, and the numbers in words.

    Lines have at most 80 columns. A line to copy has no more than its own indent, and a command that is longer is continued
    with a backslash.
    """
    width = max(NARROWEST, min(WIDEST, console.width))
    is_styled = console.is_terminal

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style if is_styled else None, soft_wrap=True, markup=False, highlight=False, emoji=False)

    say(_wrapped(audit.verdict, width), f"bold {VERDICT_COLOURS[audit.ok]}")
    grave = [finding for finding in audit.findings if finding.is_mistake or finding.fix or audit.ok is None]
    for place, finding in enumerate(grave, 1):
        say("")
        say(f"{place}. {KIND_TITLES.get(finding.kind, finding.kind)}", "bold red" if finding.is_mistake else "bold yellow")
        say(_wrapped(finding.sentence, width, "   ", "   "))
        for title, lines in (("fix:", _fix(finding, width)), ("then the lr:", _commands(finding, width))):
            if lines:
                say(f"   {title}", "dim")
                say("\n".join(lines), "cyan")
    for title, items in (("Also found", _others(audit, grave)), ("What cannot be told", audit.unknown)):
        if items:
            say(f"\n{title}", "bold")
            for item in items:
                say(_wrapped(item, width, "- ", "  "))
    say(f"\nMeasured in {audit.runs} runs of the step", "bold")
    rows = measured_rows(audit)
    column = max((len(label) for label, _ in rows), default=0) + 2
    for label, value in rows:
        say(_wrapped(value, width, f"{label:{column}}", " " * column))


def _wrapped(text: str, width: int, first: str = "", rest: str = "") -> str:
    """Returns a text in lines, with the indent of its first line and of the rest."""
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def _others(audit: Audit, grave: Sequence[Finding]) -> list[str]:
    """Returns what else was found, each as `kind: sentence`, with its command."""
    others = [finding for finding in audit.findings if finding not in grave]
    return [f"{f.kind}: {f.sentence}{f' {f.translate}' if f.translate else ''}" for f in others]


def _fix(finding: Finding, width: int) -> list[str]:
    """Returns the line of code that is right. A comment that makes it too long for a line follows it."""
    if not finding.fix:
        return []
    indent = " " * 5
    if len(indent + finding.fix) <= width:
        return [indent + finding.fix]
    code, _, comment = finding.fix.partition("   # ")
    lines = textwrap.wrap(code, width - 5, break_long_words=False, break_on_hyphens=False)
    lines += textwrap.wrap(comment, width - 5, initial_indent="# ", subsequent_indent="# ") if comment else []
    return [indent + line for line in lines]


def _commands(finding: Finding, width: int) -> list[str]:
    """Returns the commands that translate the lr, each in lines that a shell reads as one."""
    lines: list[str] = []
    for command in (finding.translate or "").split(" && "):
        words = re.sub(r" (?=--)", "\n", command).splitlines()
        row = ""
        for word in words:
            if row and len(f"     {row} {word} \\") > width:
                lines.append(f"     {row} \\")
                row = f"  {word}"
            else:
                row = f"{row} {word}" if row else word
        if row:
            lines.append(f"     {row}")
    return lines


def measured_rows(audit: Audit) -> list[tuple[str, str]]:
    """Returns what was measured: for each number its name in words, and its value with its unit."""
    return [*_gradient(audit.numbers), *_windows(audit.numbers), *_update(audit.numbers), *_accuracy(audit.numbers)]


def _gradient(numbers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the rows of the gradient of one batch."""
    if "growth" in numbers:
        name = numbers.get("reduction", "odd growth")
        words = {"mean": "as a mean", "sum": "as a sum", "averaged twice": "as if averaged twice"}.get(
            name, "neither mean nor sum"
        )
        yield "growth of c with n examples", f"n^{_power(numbers['growth'])}: {words}"
    elif "growing part" in numbers:
        share = _digits(numbers["still part / growing part"])
        yield "growth of c with n examples", f"one part as n^{numbers['growing part']}, one stays ({share} of the other)"
    if "sizes" in numbers:
        norms, sizes = (", ".join(values) for values in (map(_digits, numbers["sizes"].values()), map(str, numbers["sizes"])))
        yield "norm of the gradient", f"{norms} at n = {sizes}"
    if "mean over" in numbers:
        counts = numbers["mean over"]
        yield "the mean is over", "examples" if "examples" in counts else counts[0] if counts else "none of the counts tried"
    if numbers.get("part weights"):
        parts = ", ".join(map(str, numbers["part sizes"]))
        yield f"weights of parts of {parts}", ", ".join(f"{weight:.4f}" for weight in numbers["part weights"])
    if "not from parts" in numbers and math.isfinite(numbers["not from parts"]):
        yield "not made of the parts' gradients", _share(numbers["not from parts"])
    if "c" in numbers:
        apart = numbers.get("apart from reference", 0.0)
        at = f" at n = {numbers['c at examples']}" if "c at examples" in numbers else ""
        yield "c, against the reference", f"{_digits(numbers['c'])}{at}; in another direction: {_share(apart)}"


def _windows(numbers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the rows of accumulation and of several processes."""
    if "accumulation factor" in numbers:
        count = max(numbers.get("window of j / whole", {0: 0})) or "k"
        yield "accumulation factor", f"{count} micro-batches / all at once = {_digits(numbers['accumulation factor'])}"
    if numbers.get("changed between backwards"):
        yield "lost between two backwards", _share(numbers["changed between backwards"])
    if "unlike micro-batches apart from their whole" in numbers:
        yield "unlike micro-batches, off by", _share(numbers["unlike micro-batches apart from their whole"])
    if "ranks" in numbers:
        yield "processes against one", f"{numbers['ranks']} processes / one = {_digits(numbers['ranks / one process'])}"
        yield "unlike processes, off by", _share(numbers["ranks apart from one process"])


def _update(numbers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the rows of what the optimizer makes of the gradient."""
    groups = numbers.get("groups", [])
    names = [group["optimizer"] for group in groups]
    for group in groups:
        several = names.count(group["optimizer"]) > 1
        title = f"p of {group['optimizer']}" + (f", group {group['group']}" if several else "")
        lr = f", lr {group['lr']:g}" if "lr" in group else ""
        p = f"{_power(group['p'])} (update ~ gradient^p)" if math.isfinite(group["p"]) else "not measured: nothing moves"
        yield title, p + lr
    if not groups and "p" in numbers:
        yield "p of the step by hand", f"{_power(numbers['p'])} (update ~ gradient^p)"
    if "clip threshold" in numbers:
        acts = "acts here" if numbers.get("clip active") else "does not act here"
        yield "clip threshold", f"norm {_digits(numbers['clip threshold'])}; {acts}, at norm {_digits(numbers['gradient norm'])}"
    elif groups and "given / raw" in numbers:
        yield "clip threshold", "none: gradients times 2^20 are not clipped"
    scale = numbers.get("given / raw")
    if scale and abs(scale - 1) > 1e-6:
        yield "loss scale", f"the loss times {_digits(1 / scale)}, undone before the optimizer"
    decays = list(dict.fromkeys(group["weight_decay"] for group in groups if group.get("weight_decay")))
    if decays:
        growth = numbers.get("decay(2n)/decay(n)")
        yield "weight decay", ", ".join(f"{d:g}" for d in decays) + (f"; times {_digits(growth)} at 2n" if growth else "")


def _accuracy(numbers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the rows of how exact the numbers are."""
    if "rounding" in numbers:
        yield "rounding of a gradient", _share(numbers["rounding"])
    if "noise" in numbers:
        yield "noise of the step's random draws", _share(numbers["noise"])


def _digits(value: float) -> str:
    """Returns a number with at most four significant digits."""
    return f"{value:.4g}"


def _power(value: float) -> str:
    """Returns an exponent with two decimals, never as -0.00."""
    return f"{round(value, 2) + 0.0:.2f}"


def _share(value: float) -> str:
    """Returns a share of the gradient in words: percent, or a power of ten where it is tiny."""
    return f"{100 * value:.2g} % of it" if value == 0 or value >= 1e-4 else f"{value:.0e} of it"
