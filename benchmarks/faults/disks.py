"""A disk that is full, a folder that cannot be written: from the start, or from some moment on."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.trial import Late, Trial

__all__ = ["full", "no_modes", "no_mount", "read_only"]

SIZE = 64 << 20
LEFT = 1 << 21
"""Most bytes that are left on a full disk: somewhat more than a checkpoint."""


def full(trial: Trial) -> None:
    """All but a few bytes of a small disk are taken, and later given back."""
    disk = trial.stack.enter_context(_tmpfs(trial.folder / "disk"))
    trial.settle(disk)
    trial.name_one_of(disk)
    filler, left = disk / "filler", trial.source.randrange(LEFT)
    running = trial.source.random() < 0.5
    trial.detail |= {"left": left, "while": running}
    if running:
        command = trial.start()
        trial.moment(command, at_start=True)
        if command.over:
            raise Late
        _fill(filler, left)
        trial.end(command)
    else:
        _fill(filler, left)
        trial.run()
    filler.unlink()


def read_only(trial: Trial) -> None:
    """The folders that a command writes to lose their write permission, and later get it back."""
    trial.obedient = True
    home = trial.folder / "home"
    home.mkdir()
    trial.settle(home)
    trial.name_one_of(home)
    running = trial.source.random() < 0.5
    trial.detail["while"] = running
    if running:
        command = trial.start()
        trial.moment(command, at_start=True)
        if command.over:
            raise Late
        _permit(home, 0o555)
        trial.end(command)
    else:
        _permit(home, 0o555)
        trial.run()
    _permit(home, 0o755)


def no_mount() -> str:
    """Why no small disk can be had here; empty if it can."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with _tmpfs(Path(folder) / "disk"):
                return ""
        except (OSError, subprocess.CalledProcessError) as error:
            return f"a tmpfs cannot be mounted here: {error}"


def no_modes() -> str:
    """Why modes of files bind no command here; empty if they do."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "root overrides modes, and there is no setpriv to give that up"
    return ""


@contextmanager
def _tmpfs(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(filler: Path, left: int) -> None:
    state = os.statvfs(filler.parent)
    with filler.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(1, state.f_bavail * state.f_frsize - left))


def _permit(root: Path, mode: int) -> None:
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(mode)
