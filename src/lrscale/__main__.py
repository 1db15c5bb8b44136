"""Entry point of `python -m lrscale`, which is the same program as `lrscale`."""

import sys

from lrscale.commands.cli import main

sys.exit(main())
