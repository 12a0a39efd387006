"""`python -m podfence`, for nodes where no console script is on the path."""

import sys

from podfence.main import main

sys.exit(main())
