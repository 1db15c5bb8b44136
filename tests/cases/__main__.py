"""Writes the page of the gallery, or audits its cases many times with other data: python -m tests.cases [--draws N]"""

import argparse
import sys

import torch

from tests.gallery import PAGE, names, page, redraw


def main() -> int:
    """Returns 1 where more than 1 % of the draws are judged wrongly, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.cases", description=__doc__)
    parser.add_argument("--draws", type=int, metavar="N", help="audit at least N redrawn cases, and write nothing")
    draws = parser.parse_args().draws
    torch.set_num_threads(1)
    if draws is None:
        PAGE.write_text(page())
        return 0
    count, wrong = redraw(range(1, 1 + -(-draws // len(list(names(slow=False))))))
    print(*wrong, f"{count - len(wrong)} of {count} are right", sep="\n")
    return int(len(wrong) > count / 100)


if __name__ == "__main__":
    sys.exit(main())
