"""`python -m runtime` is `verydeep`."""

import sys

from runtime.cli.entry import main

sys.exit(main())
