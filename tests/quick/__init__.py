"""What commands and servers find in place of slow modules that they do not need."""

from __future__ import annotations

import os
from pathlib import Path


def quick_path() -> str:
    """Return the value of PYTHONPATH with this directory before what is in it."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
