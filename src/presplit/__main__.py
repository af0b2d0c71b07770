"""``python -m presplit``: the same as the command ``presplit``."""

import sys

from presplit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
