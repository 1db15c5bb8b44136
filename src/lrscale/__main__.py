"""Makes `python -m lrscale` the same program as `lrscale`."""

import sys

from lrscale.commands.cli import main

sys.exit(main())
