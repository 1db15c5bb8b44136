"""What an audit says: findings, each with its numbers, and the audit as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any

TEXT_COLUMNS = 80
"""The width of the text of an audit, in columns."""

REFUSALS = frozenset(
    {
        *("no gradient", "no update", "not finite", "float16"),
        *("closure", "weights move", "ignores the batch", "too random"),
    }
)
"""The kinds of finding after which nothing else can be measured."""
MISTAKES = frozenset(
    {
        *("sum", "averaged twice", "odd growth", "two terms", "coupled loss"),
        *("grows with the window", "not divided", "short window", "falls with the window", "accumulation factor"),
        *("mean of means", "term once a micro-batch", "changed between backwards"),
        *("ranks added up", "ranks averaged", "ranks averaged twice", "ranks factor", "ranks apart", "mean of ranks' means"),
        "c",
    }
)
"""The kinds that say: the step is not invariant to how examples are grouped, or it is not what its reference says."""


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found out.

    `kind` names it in a few words. `sentence` says it with its number. `numbers` holds what was measured. `translate` is the
    command that gives the lr after the step is mended; None where nothing changes. `fix` is the line of code that would be
    right; None where there is no mistake, or no single line. `is_mistake` says that examples are not grouped invariantly, or
    that the step is not what its reference says.
    """

    kind: str
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    translate: str | None = None
    fix: str | None = None
    is_mistake: bool = False


@dataclass(frozen=True)
class Audit:
    """What one update of a training step does to the gradient.

    `findings` come in the order of their weight. `numbers` holds all that was measured, by name. `unknown` says what cannot be
    told, and what to pass to tell it. `runs` is how many times the step was run.

    Example:
      >>> Audit((Finding("sum", "The gradient grows with the batch.", is_mistake=True),)).ok
      False
    """

    findings: tuple[Finding, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    runs: int = 0

    @property
    def ok(self) -> bool | None:
        """False where a finding says that the step is not invariant to how examples are grouped, or not what its reference
        says. None where the audit could not be made."""
        if any(finding.kind in REFUSALS for finding in self.findings):
            return None
        return not any(finding.is_mistake for finding in self.findings)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its findings."""
        return frozenset(finding.kind for finding in self.findings)

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        if self.ok is None:
            return "This step could not be audited."
        if not self.ok:
            count = sum(finding.is_mistake for finding in self.findings)
            return f"The update depends on how its examples are grouped or counted: {count} finding{'s' if count > 1 else ''}."
        return "The update is invariant to how its examples are grouped, as far as it was measured."

    def __str__(self) -> str:
        lines = wrap(self.verdict, TEXT_COLUMNS)
        for finding in self.findings:
            lines += [
                "",
                *wrap(f"{finding.kind.upper() if finding.is_mistake else finding.kind}: {finding.sentence}", TEXT_COLUMNS),
            ]
            lines += [f"    right: {finding.fix}"] if finding.fix else []
            lines += [f"    lr:    {finding.translate}"] if finding.translate else []
        if self.unknown:
            lines += ["", "Cannot be told:"]
            for sentence in self.unknown:
                lines += wrap(sentence, TEXT_COLUMNS, initial_indent="- ", subsequent_indent="  ")
        return "\n".join([*lines, "", f"The step was run {self.runs} times."])
