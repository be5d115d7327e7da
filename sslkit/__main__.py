"""``python -m sslkit`` is ``sslkit``."""

import sys

from sslkit.cli import main

sys.exit(main())
