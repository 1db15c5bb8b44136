"""Texts of a record as Markdown: formulas become readable, arXiv numbers become links, and nothing else is markup.

A record may come from a stranger. Its texts can form no link but one to arXiv, no image, no HTML and no table.
"""

import re

from lrscale.errors import printable

MOST_CHARACTERS = 300
"""A longer text is cut off here."""
BACKSLASHED = re.compile(
    r"[\\`|\[\]]"
    r"|(?<![^\W_])\*|\*(?![\s/)=,;:.]|$)"  # a star stays bare where it can only close emphasis, as in lr_sum*
    r"|(?<![^\W_])_|_(?![^\W_])"  # an underscore stays bare inside a word
    r"|(?<! )~|~(?! )"
)
ALONE = re.compile(r"\$|@|(?<=:)//|(?<=www)\.|:(?=[\w+-]+:)", re.I)
"""Signs of math, addresses and emoji: in a <span> of their own they stay text."""
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
FORMULAS = [
    (r"\\\[(-?[\d.]+, -?[\d.]+)\\\](?=[ ,.;)]|$)", r"[\1]"),  # an interval keeps its brackets
    (r"&lt;=", "≤"),
    (r"&gt;=", "≥"),
    (r"&lt;&lt;", "≪"),
    (r"\bsqrt\(", "√("),
    (r" ~ ", " ∼ "),
    (r"(?<=[\w,]) x (?=\w)", " × "),
    (r"\b(lr|B|S|E|eta|lam)_([a-z]+)\b(\*?)", r"\1\3<sub>\2</sub>"),
    (r"\beta(?![A-Za-z])", "η"),
    (r"\bbeta(?![A-Za-z])", "β"),
    (r"\bkappa(?![A-Za-z])", "κ"),
    (r"\blam(?![A-Za-z])", "λ"),
    (r"\bsigma(?![A-Za-z])", "σ"),
    (r"\bSigma(?![A-Za-z])", "Σ"),
    (r"\^2(?!\d)", "²"),
    (r"\^(-?\d+(?:\.\d+)?|\w)(?!\w)", r"<sup>\1</sup>"),
    (r"\b(\d(?:\.\d+)?)e-0?(\d+)\b", r"\1×10<sup>-\2</sup>"),
    (r"\barXiv (\d{4}\.\d{4,5})\b", r"[arXiv \1](https://arxiv.org/abs/\1)"),
]
"""What replaces what in an escaped text, in this order."""


def in_markdown(text: str) -> str:
    """Returns a text of a record as one line of Markdown.

    Example:
      >>> in_markdown("lr_sum* = eta_max/(B + B_c) (arXiv 1812.06162)")
      'lr*<sub>sum</sub> = η<sub>max</sub>/(B + B<sub>c</sub>) ([arXiv 1812.06162](https://arxiv.org/abs/1812.06162))'
      >>> in_markdown("[here](http://evil) **now** | <b>")
      '\\\\[here\\\\](http:<span>//</span>evil) \\\\*\\\\*now\\\\*\\\\* \\\\| &lt;b&gt;'
    """
    made = _escaped(text)
    for pattern, replacement in FORMULAS:
        made = re.sub(pattern, replacement, made)
    return made


def in_code(text: str) -> str:
    """Returns a text as code, or as escaped text where code could not hold it.

    Example:
      >>> in_code("lrscale reproduce adam"), in_code("a`b")
      ('`lrscale reproduce adam`', 'a\\\\`b')
    """
    return f"`{text}`" if re.fullmatch(r"[\w. /-]+", text, re.A) else _escaped(text)


def _escaped(text: str) -> str:
    """Returns a text in which Markdown finds nothing to format."""
    line = printable(" ".join(text.split()))
    if len(line) > MOST_CHARACTERS:
        line = f"{line[:MOST_CHARACTERS]}…"
    line = BACKSLASHED.sub(r"\\\g<0>", line)
    line = re.sub("[&<>]", lambda sign: ENTITIES[sign[0]], line)
    return ALONE.sub(r"<span>\g<0></span>", line)
