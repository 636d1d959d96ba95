"""The end of a process from a thread of it, with one line."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from sno_dist.errors import SnoError

__all__ = ["end_at_once"]


def end_at_once(error: SnoError) -> NoReturn:
    """Tell an error and end: the main thread waits inside of a library, which no exception reaches.

    Files are whole at any moment and locks are the system's, so nothing is lost by it.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    rank = f"[rank {os.environ.get('RANK', '?')}] " if several else ""
    sys.stderr.write(f"\n{rank}error: {error}\n")
    sys.stderr.flush()
    os._exit(error.exit_code)
