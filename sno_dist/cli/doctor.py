"""`doctor`: whether this machine, and the ranks it was started on, can do the work."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import click

from sno_dist.errors import SnoError

__all__ = ["doctor"]

Check = Callable[[Path], str]

FREE = 2  # GiB; the demo's environment, shards and run together stay below


class Finding(SnoError):
    """A check that failed: what is wrong and what to do."""


@click.command(short_help="Check packages, devices, collectives and the disk.")
@click.argument(
    "folder", type=click.Path(path_type=Path, file_okay=False), default=Path(), required=False
)
def doctor(folder: Path) -> None:
    """Check packages, devices, collectives and the file system of FOLDER (default: here).

    Started by accelerate, every rank checks and tells what fails on it.

    \b
      sno-dist doctor
      sno-dist doctor /scratch/runs
      accelerate launch --config_file launch/accelerate/one_machine.yaml --num_processes 2 \\
        -m sno_dist doctor
    """
    failed = 0
    checks = tuple(_checks())
    main = os.environ.get("RANK", "0") == "0"
    for name, check in checks:
        try:
            found = check(folder)
        except (SnoError, OSError, RuntimeError, ImportError) as error:
            failed += 1
            rank = "" if main else f"[rank {os.environ['RANK']}] "
            click.echo(f"{rank}FAIL  {name:<12}  {' '.join(str(error).split())}")
        else:
            if main:
                click.echo(f"ok    {name:<12}  {found}")
    if failed:
        raise SnoError(f"{failed} of {len(checks)} checks failed", fix="see FAIL above")


def _checks() -> Iterator[tuple[str, Check]]:
    yield "python", _python
    yield "packages", _packages
    yield "devices", _devices
    yield "bf16", _bf16
    yield "collectives", _collectives
    yield "shared", _shared
    yield "rename", _rename
    yield "lock", _lock
    yield "disk", _disk
    yield "tensorboard", _tensorboard


def _python(folder: Path) -> str:
    del folder
    if sys.version_info < (3, 10):  # noqa: UP036 - a checkout can be run without installing
        raise Finding(
            "this Python is too old",
            got=platform.python_version(),
            expected=">= 3.10",
            fix="make the environment with a newer one: make PYTHON=python3.11 test",
        )
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _packages(folder: Path) -> str:
    from packaging.requirements import Requirement

    del folder
    wrong, versions = [], {}
    for line in metadata.requires("sno-dist") or []:
        need = Requirement(line)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            versions[need.name] = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{need.name} is missing")
            continue
        if not need.specifier.contains(versions[need.name], prereleases=True):
            wrong.append(f"{need.name} {versions[need.name]} is not {need.specifier}")
    if wrong:
        raise Finding(
            "packages do not fit", got="; ".join(wrong), fix="pip install -c constraints.txt -e ."
        )
    shown = ("torch", "accelerate", "webdataset", "tensorboard", "deepspeed")
    names = ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
    return f"{len(versions)} fit; {names}"


def _devices(folder: Path) -> str:
    import torch

    del folder
    if not torch.cuda.is_available():
        return f"no GPU; CPU with {os.cpu_count()} cores, {torch.get_num_threads()} threads a rank"
    count = torch.cuda.device_count()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if local > count:
        raise Finding(
            "more ranks than GPUs on this machine",
            got=f"{local} ranks, {count} GPUs",
            fix=f"start at most {count} processes here",
        )
    return f"{count} x {torch.cuda.get_device_name()}"


def _bf16(folder: Path) -> str:
    import torch

    from sno_dist.runtime.precision import has_bf16

    del folder
    device = "cuda" if torch.cuda.is_available() else "cpu"
    values = torch.arange(64 * 64, dtype=torch.float32, device=device).reshape(64, 64) / 4096
    with torch.autocast(device, torch.bfloat16):
        product = values @ values
    # 8 bits of mantissa: two roundings of the factors and one of the product.
    worst = ((product.float() - values @ values).abs() / (values @ values)).max().item()
    if product.dtype != torch.bfloat16 or not worst < 2**-6:
        raise Finding(
            "bf16 autocast gives wrong products",
            got=f"{product.dtype}, relative error {worst:.1e}",
            expected="below 1.6e-02",
            fix="train with training.precision=fp32",
        )
    speed = "" if has_bf16(torch.device(device)) else ", imitated: training.precision=auto is fp32"
    return f"matrix product on {device}, relative error {worst:.0e}{speed}"


def _collectives(folder: Path) -> str:
    import torch

    from sno_dist.runtime import collectives
    from sno_dist.runtime.accelerator import start

    del folder
    start()
    world = collectives.world()
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if world.size != wanted:
        raise Finding(
            "the ranks have not met",
            got=f"a world of {world.size}",
            expected=f"WORLD_SIZE={wanted}",
            fix="start with `accelerate launch --config_file launch/accelerate/one_machine.yaml`",
        )
    total = collectives.sum_over_ranks(torch.tensor([world.rank + 1]), "doctor: all_reduce").item()
    first = collectives.broadcast(world.rank, "doctor: broadcast")
    ranks = collectives.gather(world.rank, "doctor: gather")
    collectives.barrier("doctor: barrier")
    if (total, first, ranks) != (wanted * (wanted + 1) // 2, 0, list(range(wanted))):
        raise Finding(
            "a collective gave a wrong value",
            got=f"sum {total}, broadcast {first}, gather {ranks}",
            fix="check the interconnect's driver and library versions; they must be one per job",
        )
    return f"all_reduce, broadcast, gather, barrier over {world.size} rank(s)"


def _shared(folder: Path) -> str:
    from sno_dist.runtime import collectives
    from sno_dist.runtime.disk import check_shared

    check_shared(folder)
    return f"what rank 0 writes is seen by {collectives.world().size} rank(s)"


def _rename(folder: Path) -> str:
    with _scratch(folder) as name:
        new, old = Path(name, "new"), Path(name, "old")
        new.mkdir()
        (new / "data").write_text("new")
        for path in (new / "data", new):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        new.rename(old)
        file = Path(name, "file")
        file.write_text("old")
        (old / "data").replace(file)
        if file.read_text() != "new":
            raise Finding(
                "a renamed file shows its old content",
                where=folder,
                fix="keep runs and shards on a file system with atomic renames",
            )
    return f"atomic rename and fsync in {folder.resolve()}"


def _lock(folder: Path) -> str:
    import fcntl

    with _scratch(folder) as name:
        path = Path(name, "lock")
        with path.open("w") as one, path.open("w") as other:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return "flock keeps a second owner out"
    raise Finding(
        "flock lets two owners in",
        where=folder,
        fix="mount the file system with locks (NFS: local_lock=none) or use another folder",
    )


def _disk(folder: Path) -> str:
    with _scratch(folder) as name:
        free = shutil.disk_usage(name).free / 2**30
    if free < FREE:
        raise Finding(
            "little space is left", where=folder, got=f"{free:.1f} GiB", expected=f">= {FREE} GiB"
        )
    return f"{free:.0f} GiB free in {folder.resolve()}"


def _tensorboard(folder: Path) -> str:
    import tensorboard
    from torch.utils.tensorboard import SummaryWriter

    with _scratch(folder) as name, SummaryWriter(name) as writer:
        writer.add_scalar("doctor", 1.0, 0)
    return f"{tensorboard.__version__} writes"


def _scratch(folder: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder)
    except OSError as error:
        raise Finding(
            "the folder cannot be written",
            where=folder,
            got=error.strerror,
            fix="make it, or mend its permissions",
        ) from error
