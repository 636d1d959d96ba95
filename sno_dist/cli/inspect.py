"""`inspect`: what an artifact, a run folder or a shard holds, and whether it is whole."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from sno_dist.cli import layout
from sno_dist.errors import ArtifactError, DataError

if TYPE_CHECKING:
    from sno_dist.runtime.artifact import Artifact

__all__ = ["inspect"]

BRIEF = 100
"""Characters of an input that are shown."""


@click.command(short_help="Tell what an artifact, run or shard holds, and verify it.")
@click.argument("path", type=click.Path(path_type=Path))
def inspect(path: Path) -> None:
    """Tell what PATH holds and verify it: an artifact, a run folder or one shard.

    Sizes and sha256 are checked against COMPLETE; a shard's against that of the folder it lies in.

    \b
      sno-dist inspect data_shards/digits
      sno-dist inspect runs/digits
      sno-dist inspect data_shards/digits/seen/00/model-00000.tar
    """
    if path.is_file() and path.suffix == ".tar":
        _shard(path)
    elif (path / "COMPLETE").is_file():
        _artifact(path)
    elif path.is_dir() and layout.is_run(path):
        _run(path)
    else:
        raise ArtifactError(
            "nothing here that can be inspected",
            where=path,
            got="a folder or file of another kind" if path.exists() else "nothing",
            expected="a folder with COMPLETE, a run folder or a .tar shard",
        )


def _run(path: Path) -> None:
    from sno_dist.runtime.artifact import open_artifact

    click.echo(f"run     {path}")
    for stage in layout.STAGES:
        # how many steps there are to be is the config's to know
        step = layout.newest_step(path) if stage == "training" else None
        told = layout.state(path / stage) if step is None else f"step {step}"
        click.echo(f"{stage:<10}  {told}")
    for complete in sorted(path.rglob("COMPLETE")):
        folder = complete.parent
        if any(part.startswith(".") for part in folder.relative_to(path).parts):
            continue  # what a stopped writer left, or one that writes now
        artifact = open_artifact(folder, verify=False)
        _verify(artifact, artifact.files)
        click.echo(f"whole   {folder.relative_to(path)}")


def _artifact(path: Path) -> None:
    from sno_dist.runtime.artifact import open_artifact

    artifact = open_artifact(path, verify=False)
    _verify(artifact, artifact.files)
    size = sum(entry["bytes"] for entry in artifact.files.values())
    click.echo(f"kind    {artifact.kind}")
    click.echo(f"files   {len(artifact.files)}")
    click.echo(f"bytes   {size}")
    click.echo(f"digest  {artifact.digest}")
    for key, value in sorted(artifact.inputs.items()):
        click.echo(f"input   {key}: {_brief(value)}")
    click.echo("whole   every size and sha256 is as COMPLETE says")


def _verify(artifact: Artifact, names: Iterable[str]) -> None:
    """Refuse those of its files whose content is not as COMPLETE says."""
    from sno_dist.runtime.artifact import sha256

    entries = {name: artifact.files[name] for name in sorted(names)}
    total = sum(entry["bytes"] for entry in entries.values())
    # disable=None: no bar where stderr is not a terminal.
    with tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for name, entry in entries.items():
            found = sha256(artifact.path / name)
            if found != entry["sha256"]:
                raise ArtifactError(
                    "a file of the artifact is damaged",
                    where=artifact.path / name,
                    got=f"sha256 {found[:12]}",
                    expected=f"sha256 {entry['sha256'][:12]}",
                    fix="delete the folder and run its stage again",
                )
            bar.update(entry["bytes"])


def _shard(path: Path) -> None:
    records: dict[str, list[str]] = {}
    try:
        with tarfile.open(path) as shard:
            for member in shard:
                folder, slash, name = member.name.rpartition("/")
                key, _, extension = name.partition(".")
                records.setdefault(folder + slash + key, []).append(f"{extension} {member.size} B")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError("the shard cannot be read", where=path, got=str(error)) from error
    click.echo(f"kind    shard\nrecords {len(records)}\nbytes   {path.stat().st_size}")
    for key, members in records.items():
        click.echo(f"record  {key}: {', '.join(members)}")
    click.echo(f"whole   {_whole(path.absolute())}")


def _whole(shard: Path) -> str:
    """Whether a shard is as the folder it was built in says; damage is an error."""
    from sno_dist.runtime.artifact import open_artifact

    for folder in shard.parents:
        if (folder / "COMPLETE").is_file():
            artifact = open_artifact(folder, verify=False)
            name = shard.relative_to(folder).as_posix()
            if name in artifact.files:
                _verify(artifact, [name])
                return "its size and sha256 are as COMPLETE says"
    return "not known: no COMPLETE above tells of it"


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}..."
