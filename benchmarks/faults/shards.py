"""Shards that are cut short, changed, gone or in each other's place, on disk or in the cache."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.remote import serve
from benchmarks.faults.trial import Late, Trial, wait

__all__ = ["cut", "cut_while_open", "damage", "flip", "remove", "swap"]

Damage = Callable[[Path, Path, Trial], None]
"""Does something to a shard, or to it and another."""


def cut(shard: Path, other: Path, trial: Trial) -> None:
    """Keep a random part of a shard."""
    del other
    os.truncate(shard, trial.source.randrange(shard.stat().st_size))


def flip(shard: Path, other: Path, trial: Trial) -> None:
    """Change one bit of a random byte."""
    del other
    with shard.open("r+b") as stream:
        place = trial.source.randrange(shard.stat().st_size)
        stream.seek(place)
        (byte,) = stream.read(1)
        stream.seek(place)
        stream.write(bytes([byte ^ 1 << trial.source.randrange(8)]))
    trial.detail["byte"] = place


def remove(shard: Path, other: Path, trial: Trial) -> None:
    """Delete a shard."""
    del other, trial
    shard.unlink()


def swap(shard: Path, other: Path, trial: Trial) -> None:
    """Exchange two shards' files."""
    del trial
    aside = shard.with_suffix(".aside")
    shard.rename(aside)
    other.rename(shard)
    aside.rename(other)


def damage(trial: Trial, harm: Damage) -> None:
    """Damage a shard before a command starts, or at a random moment of its work.

    The shard is one of the population's folder, or of the cache of a remote one, filled before.
    """
    cached, running = trial.source.random() < 0.3, trial.source.random() < 0.5
    trial.detail |= {"in": "cache" if cached else "folder", "while": running}
    shard, other = _in_cache(trial) if cached else _in_folder(trial)
    trial.detail["shard"] = shard.name if cached else str(shard.relative_to(trial.folder))
    trial.name_one_of(shard, other)
    with _mended(shard, other):
        if not running:
            harm(shard, other, trial)
            trial.run()
            return
        command = trial.start()
        trial.moment(command, at_start=True)
        if command.over:
            raise Late
        harm(shard, other, trial)
        trial.end(command)


def cut_while_open(trial: Trial) -> None:
    """Cut a shard short once the manifest has been read, so that a read of it ends early."""
    shard, other = _in_folder(trial)
    trial.detail |= {"fault": "file", "shard": str(shard.relative_to(trial.folder))}
    trial.name_one_of(shard)
    with _mended(shard, other):
        command = trial.start()
        wait((trial.place.run / "config.yaml").is_file, command, trial.patience)
        trial.pause(2 * trial.stage.items * trial.clock.pace)
        if command.over:
            raise Late
        cut(shard, other, trial)
        trial.end(command)


def _in_folder(trial: Trial) -> tuple[Path, Path]:
    """Two shards of a copy, of those that training reads."""
    folder = trial.folder / "shards"
    shutil.copytree(trial.reference.shards, folder)
    trial.settle(trial.folder, str(folder))
    shard, other = trial.source.sample(sorted(folder.glob("seen/*/model-*.tar")), 2)
    return shard, other


def _in_cache(trial: Trial) -> tuple[Path, Path]:
    """Two shards that training reads, in a cache that holds all of those."""
    serve(trial)
    manifest = json.loads((trial.reference.shards / "manifest.json").read_text())
    kept = []
    for entry in manifest["entries"]:
        for shard in entry["roles"]["model"] if entry["split"] == "seen" else ():
            path = trial.place.cache / shard["sha256"][:2] / f"{shard['sha256']}.tar"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(trial.reference.shards / shard["file"], path)
            kept.append(path)
    shard, other = trial.source.sample(kept, 2)
    return shard, other


@contextmanager
def _mended(*shards: Path) -> Iterator[None]:
    """The shards as they were, when the block is left."""
    whole = {shard: shard.read_bytes() for shard in shards}
    try:
        yield
    finally:
        for shard, content in whole.items():
            # a new file, not the old one written over: who mapped that is gone
            shard.unlink(missing_ok=True)
            shard.write_bytes(content)
