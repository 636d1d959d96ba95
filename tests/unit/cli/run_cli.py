"""Calls the command line in this process, as a shell would see it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from sno_dist.cli.main import main

__all__ = ["Outcome", "call"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    code: int
    out: str
    err: str


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    heard = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return Outcome(code=caught.value.code, out=heard.out, err=heard.err)
