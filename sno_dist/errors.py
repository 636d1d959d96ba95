"""The errors a user can cause, each told in one line: what, where, got, expected, what to do."""

from __future__ import annotations

__all__ = ["ArtifactError", "ConfigError", "DataError", "Preempted", "RunError", "SnoError"]


class SnoError(Exception):
    """Base of every error that the command line prints as one line instead of a traceback.

    Args:
        what: What failed, in plain words.
        where: The file or the dotted config path that it failed at.
        got: What was found there.
        expected: What should have been there.
        fix: What the reader can do about it.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        got: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        parts = [what]
        for label, value in (("at", where), ("got", got), ("expected", expected), ("do", fix)):
            if value is not None:
                parts.append(f"{label}: {value}")
        super().__init__(" | ".join(" ".join(part.split()) for part in parts))


class ConfigError(SnoError):
    """A config file, an override or a launcher setting is wrong or contradicts another."""

    exit_code = 2


class DataError(SnoError):
    """Data given to the system is missing, damaged or of the wrong form."""

    exit_code = 3


class ArtifactError(SnoError):
    """An artifact on disk is missing, incomplete, damaged or made from other inputs."""

    exit_code = 4


class RunError(SnoError):
    """A run cannot go on: a non-finite loss, a folder in use, a lost rank."""

    exit_code = 5


class Preempted(SnoError):
    """The run was asked to stop, saved what it had, and can be continued by the same command.

    The exit status 75 (EX_TEMPFAIL) is what a scheduler's requeue rule looks for.
    """

    exit_code = 75
