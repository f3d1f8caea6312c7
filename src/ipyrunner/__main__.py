"""``python -m ipyrunner``: install and uninstall the kernelspec."""

from __future__ import annotations

import sys

from .kernel.kernelspec import main

if __name__ == "__main__":
    sys.exit(main())
