"""Several command lines in one group of ranks, since a group costs seconds to bring up.

`session_program.py FILE`: FILE holds a JSON list of command lines, each a list of words after
`sno-dist`. They run one after the other, as a shell would, and the first error ends them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sno_dist.cli.main import commands, guarded


def session() -> None:
    for words in json.loads(Path(sys.argv[1]).read_text()):
        commands.main(words, prog_name="sno-dist", standalone_mode=False)


if __name__ == "__main__":
    guarded(session)
