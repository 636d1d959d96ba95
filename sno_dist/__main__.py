"""`python -m sno_dist`: the same as the command `sno-dist`."""

from __future__ import annotations

from sno_dist.cli.main import main

if __name__ == "__main__":
    main()
