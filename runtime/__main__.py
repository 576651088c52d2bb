"""`python -m runtime` is `verydeep`."""

import sys

from runtime.cli.main import main

sys.exit(main())
