"""Makes `python -m lrscale` the same program as `lrscale`."""

import sys

from lrscale.cli import main

sys.exit(main())
