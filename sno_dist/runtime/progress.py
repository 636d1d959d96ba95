"""Progress as a person wants it: a bar on rank 0's terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

from sno_dist.runtime import collectives

__all__ = ["Progress", "say"]

QUIET = 10.0


def say(line: str) -> None:
    """Write one line to the terminal or the log, from rank 0 alone."""
    if collectives.world().is_main:
        tqdm.write(line, file=sys.stderr)


class Progress:
    """A bar on a terminal; in a file at most one line every ten seconds.

    Args:
        total: Items of this rank.
        label: What is being done.
        done: Items done before, by an earlier attempt.
    """

    def __init__(self, total: int, label: str, *, done: int = 0) -> None:
        self._label, self._total, self._done = label, total, done
        self._main = collectives.world().is_main
        self._start, self._first = time.monotonic(), done
        self._spoke = self._start
        self._bar = None
        if self._main and sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=done, desc=label, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        """Nothing is opened: the bar is up from construction."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the bar, or say how long it took."""
        if self._bar is not None:
            self._bar.close()
        elif self._main and kind is None:
            say(f"{self._label}: {self._done}/{self._total} in {self._elapsed():.1f} s")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Report `count` more items, with a note such as the loss."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            if note:
                self._bar.set_postfix_str(note, refresh=False)
        elif self._main and time.monotonic() - self._spoke > QUIET:
            self._spoke = time.monotonic()
            rate = (self._done - self._first) / max(self._elapsed(), 1e-9)
            left = (self._total - self._done) / max(rate, 1e-9)
            say(
                f"{self._label}: {self._done}/{self._total}, {rate:.1f}/s, {left:.0f} s left"
                + (f", {note}" if note else "")
            )

    def _elapsed(self) -> float:
        return time.monotonic() - self._start
