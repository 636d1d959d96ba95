"""Kernel mean embeddings: exact tiles and Fourier quadrature beside what else computes them.

In two dimensions on the lattice family, all side by side in one process: a plain loop in float64,
scikit-learn, KeOps (`pip install pykeops`; left out where it is missing), our exact tiles and our
quadrature; their growth; and a population of the paper's appendix, 5,000 distributions of 1,000
samples, from its shards to its principal components on all cores. In 1,024 dimensions: exact
tiles beside the matrix product of the same shapes.

What is compared takes turns in one process, one way after the other, so that what else the machine
does hits all. Seconds are medians over turns, a ratio is the median over neighbouring ones.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics.pairwise import rbf_kernel
from torch import Tensor

from benchmarks import finish, machine
from sno_dist.config.load import load_config
from sno_dist.embedding.fourier import FourierQuadrature
from sno_dist.embedding.gram import gram_matrix, panels_of
from sno_dist.embedding.kernels import Gaussian
from sno_dist.embedding.pairs import pair_sums
from sno_dist.embedding.sets import SampleSets
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import open_manifest
from sno_dist.shards.reader import Reader
from sno_dist.shards.sources.gaussian_mixture import SEEN_RULES, laws, lower_corners

SIZES = ((64, 128), (64, 256), (64, 512))
ERRORS = {1.0: 1e-8, 0.5: 3e-10}
"""Bandwidth -> error asked of the quadrature, such that the smallest entries keep six digits."""
GOALS = {
    "quadrature_over_keops": 200,
    "relative_error": 1e-6,
    "paper_seconds": 60,
    "tiles_over_product": 0.7,
    "peak_bytes": 2 << 30,
}
Gram = Callable[[Sequence[Tensor], float], Tensor]


@dataclass(frozen=True)
class MemorySets:
    """Sets of samples in memory, as `gram_matrix` reads them."""

    sets: Sequence[Tensor]

    @property
    def lengths(self) -> list[int]:
        """Samples in each."""
        return [len(rows) for rows in self.sets]

    @property
    def dims(self) -> int:
        """Entries of a sample."""
        return self.sets[0].shape[1]

    def panel(self, items: Sequence[int]) -> Tensor:
        """Some sets end to end."""
        return torch.cat([self.sets[item] for item in items])


def lattice(count: int, samples: int) -> list[Tensor]:
    """Samples of `count` seen laws of the lattice family, (samples, 2) float64 each."""
    names = [name for rule in SEEN_RULES for name in laws(*rule)]
    source = np.random.default_rng(0)
    sets = []
    for name in source.choice(names, count):
        corners = lower_corners(str(name))[source.integers(4, size=samples)]
        sets.append(torch.from_numpy(corners + source.random(corners.shape)))
    return sets


def naive(sets: Sequence[Tensor], bandwidth: float) -> Tensor:
    """The formula as it stands, pair by pair."""
    gram = torch.zeros(len(sets), len(sets), dtype=torch.float64)
    for i, j in combinations_with_replacement(range(len(sets)), 2):
        gaps = sets[i][:, None] - sets[j][None]
        gram[i, j] = gram[j, i] = (-0.5 / bandwidth**2 * gaps.square().sum(-1)).exp().mean()
    return gram


def scikit_learn(sets: Sequence[Tensor], bandwidth: float) -> Tensor:
    """`rbf_kernel`, pair by pair."""
    arrays = [rows.numpy() for rows in sets]
    gram = torch.zeros(len(sets), len(sets), dtype=torch.float64)
    for i, j in combinations_with_replacement(range(len(sets)), 2):
        values = rbf_kernel(arrays[i], arrays[j], gamma=0.5 / bandwidth**2)
        gram[i, j] = gram[j, i] = float(values.mean())
    return gram


def keops(dtype: torch.dtype) -> Gram:
    """KeOps, each set against all that follow it in one fused reduction."""
    from pykeops.torch import LazyTensor  # pyright: ignore[reportMissingImports]

    def gram_of(sets: Sequence[Tensor], bandwidth: float) -> Tensor:
        rows = torch.cat([own.to(dtype) for own in sets])
        starts = np.cumsum([0, *map(len, sets)]).tolist()
        gram = torch.zeros(len(sets), len(sets), dtype=torch.float64)
        for i, (first, last) in enumerate(pairwise(starts)):
            own = LazyTensor(rows[first:last].contiguous()[None])
            rest = LazyTensor(rows[first:].contiguous()[:, None])
            sums = (-((rest - own) ** 2).sum(-1) / (2 * bandwidth**2)).exp().sum(1).double()
            parts = sums[:, 0].split([len(other) for other in sets[i:]])
            gram[i, i:] = torch.stack([part.mean() for part in parts]) / (last - first)
        return torch.triu(gram) + torch.triu(gram, 1).T

    return gram_of


def tiles(sets: Sequence[Tensor], bandwidth: float) -> Tensor:
    """Our exact tiles, files included."""
    with tempfile.TemporaryDirectory() as folder:
        return gram_matrix(MemorySets(sets), Gaussian(bandwidth), Path(folder))


def quadrature(sets: Sequence[Tensor], bandwidth: float) -> Tensor:
    """Our feature form: sums of waves, their weights, one product."""
    rows = torch.cat(list(sets))
    feature_map = FourierQuadrature(
        torch.tensor(bandwidth, dtype=torch.float64),
        rows.amax(0) - rows.amin(0),
        torch.tensor(ERRORS[bandwidth], dtype=torch.float64),
    )
    lengths = torch.tensor([len(own) for own in sets])
    mean = feature_map.weigh(feature_map.sums(rows, lengths).mean)
    return mean @ mean.T


def methods() -> dict[str, Gram]:
    """Every way that is installed."""
    found: dict[str, Gram] = {"naive": naive, "scikit_learn": scikit_learn}
    try:
        found |= {"keops": keops(torch.float64), "keops_float32": keops(torch.float32)}
    except ImportError:
        print("pykeops is not installed, and is left out", file=sys.stderr)
    return {**found, "tiles": tiles, "quadrature": quadrature}


def in_turns(ways: Mapping[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Seconds of every way at every turn."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return times


def ratio(longer: Sequence[float], shorter: Sequence[float]) -> float:
    """How many times as long one way takes as another, neighbouring turns compared."""
    return statistics.median(a / b for a, b in zip(longer, shorter, strict=True))


def side_by_side(bandwidth: float, turns: int) -> dict[str, Any]:
    """Seconds and errors of every method at every size, and how they grow."""
    ways = methods()
    rows: list[dict[str, Any]] = []
    times: dict[str, list[float]] = {}
    for count, samples in SIZES:
        sets = lattice(count, samples)
        exact = naive(sets, bandwidth)
        errors = {}
        for name, gram in ways.items():
            gram(sets[:2], bandwidth)  # KeOps compiles, buffers are touched
            errors[name] = float(((gram(sets, bandwidth) - exact).abs() / exact).max())
        times = in_turns(
            {name: partial(gram, sets, bandwidth) for name, gram in ways.items()}, turns
        )
        for name, error in errors.items():
            seconds = statistics.median(times[name])
            rows.append(
                {"method": name, "sets": count, "samples": samples, "seconds": seconds}
                | {"relative_error": error}
            )
            print(f"{name}, {count} x {samples}: {seconds:.4f} s, {error:.1e}", file=sys.stderr)
    growth = {}
    for name in ways:
        seconds = [row["seconds"] for row in rows if row["method"] == name]
        steps = np.log([samples for _, samples in SIZES])
        growth[name] = float(np.polyfit(steps, np.log(seconds), 1)[0])
    result: dict[str, Any] = {"turns": turns, "rows": rows, "growth_in_samples": growth}
    # the last rows and times are of the largest size
    result["quadrature_error"] = rows[-1]["relative_error"]
    if "keops" in times:
        result["quadrature_over_keops"] = min(
            ratio(times[name], times["quadrature"]) for name in ("keops", "keops_float32")
        )
    return result


def paper_population(folder: Path, count: int, samples: int) -> dict[str, Any]:
    """The embedding stage on 5,000 distributions, from shards, as a user launches it."""
    overrides = [
        f"shards.path={folder}/shards",
        f"run={folder}/run",
        "shards.source.kind=gaussian_mixture",
        f"shards.source.seen={count}",
        "shards.source.unseen=1",
        f"shards.source.model={samples}",
        "shards.source.reference=10",
        "embedding.kind=kme",
        "embedding.form.kind=fourier",
        "embedding.samples=null",
        "embedding.kernel.bandwidth=0.29",
        "embedding.components=34",
        "judge=null",
    ]
    build_shards(load_config(None, overrides))
    ranks = len(os.sched_getaffinity(0))
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    launch += ["--config_file", "launch/accelerate/one_machine.yaml", "--num_processes", str(ranks)]
    command = ["-m", "sno_dist", "fit-embedding", *overrides]
    start = time.perf_counter()
    subprocess.run([*launch, *command], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    seconds = time.perf_counter() - start
    report = json.loads((folder / "run/embedding/report.json").read_text())
    keys = ("features", "components", "kept", "gram_error", "gram_largest")
    return {"distributions": count, "samples_each": samples, "ranks": ranks, "seconds": seconds} | {
        key: report[key] for key in keys
    }


def images(sets: int, samples: int, dims: int) -> MemorySets:
    """As many sets of random pixels as a tile needs; what they show does not matter here."""
    source = torch.Generator().manual_seed(0)
    return MemorySets(
        [torch.rand(samples, dims, generator=source, dtype=torch.float64) for _ in range(sets)]
    )


def wide_tiles(count: int, samples: int, dims: int, turns: int) -> dict[str, Any]:
    """Tiles of `count` sets in many dimensions, in turns with the bare product of their shapes.

    A population of 100 such sets has hundreds of equal tiles: a few of them tell the speed.
    """
    panels = panels_of([samples] * count, dims)
    width = len(panels[0])
    sets, kernel = images(2 * width, samples, dims), Gaussian(dims**0.5 / 4)
    x, y = sets.panel(range(width)), sets.panel(range(width, 2 * width))
    # As in the job, where a panel of rows keeps its form while it meets the panels of columns.
    lengths, right = [samples] * width, kernel.right(y)
    first, second, shape = x.numpy(), y.numpy(), (width, samples, width, samples)
    work: dict[str, Callable[[], object]] = {
        "product": lambda: x @ y.T,
        "tile": lambda: pair_sums(kernel, x, lengths, right, lengths),
        "scikit_learn": lambda: (
            rbf_kernel(first, second, gamma=8 / dims).reshape(shape).sum((1, 3))
        ),
    }
    work |= _keops_pair(x[:samples], y[:samples], dims)
    times = in_turns(work, turns)
    values = (width * samples) ** 2
    found: dict[str, Any] = {
        "distributions": count,
        "samples_each": samples,
        "dims": dims,
        "tiles": len(panels) * (len(panels) + 1) // 2,
        "sets_in_a_panel": width,
        "turns": turns,
        "product_gflops": 2 * dims * values / statistics.median(times["product"]) / 1e9,
        "tile_seconds": statistics.median(times["tile"]),
        "tiles_over_product": ratio(times["product"], times["tile"]),
    }
    if "keops" in times:
        found["extrapolated_from"] = {"keops": f"one pair of sets, times {width**2}"}
        times["keops"] = [seconds * width**2 for seconds in times["keops"]]
    peers = [name for name in ("scikit_learn", "keops") if name in times]
    found["peers_seconds_per_tile"] = {name: statistics.median(times[name]) for name in peers}
    found["tiles_over_peers"] = {name: ratio(times[name], times["tile"]) for name in peers}
    return found


def _keops_pair(x: Tensor, y: Tensor, dims: int) -> dict[str, Callable[[], object]]:
    """KeOps on one pair of a tile's sets, as all take it a minute; nothing where it is missing."""
    try:
        from pykeops.torch import LazyTensor  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {}
    own, rest = LazyTensor(x[None].contiguous()), LazyTensor(y[:, None].contiguous())

    def fused() -> Tensor:
        return (-((rest - own) ** 2).sum(-1) * (8 / dims)).exp().sum(1)

    fused()  # KeOps compiles
    return {"keops": fused}


def peak_of_tiles(folder: Path, count: int, samples: int, dims: int) -> int:
    """The peak memory of a process of its own that computes an exact Gram matrix from shards.

    It grows with neither the number of sets nor, but for the matrix itself, that of tiles.
    """
    data = folder / "images"
    data.mkdir()
    source = np.random.default_rng(0)
    for item in range(count):
        np.save(data / f"{item:03d}.npy", source.random((samples, dims), np.float32))
    overrides = [
        f"shards.path={folder}/wide",
        f"run={folder}/wide-run",
        "shards.source.kind=folder",
        f"shards.source.path={data}",
        "shards.source.judge=0",
        "shards.split.unseen=0.02",
        "judge=null",
    ]
    build_shards(load_config(None, overrides))
    code = f"from benchmarks.gram import gram_of_shards; gram_of_shards({overrides!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    return int(done.stdout)


def gram_of_shards(overrides: list[str]) -> None:
    """Compute a Gram matrix as the stage does, and print the process's peak memory."""
    manifest = open_manifest(load_config(None, overrides))
    sets = SampleSets(Reader(manifest), manifest.split("seen"), None, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        gram_matrix(sets, Gaussian(sets.dims**0.5 / 4), Path(folder))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """Measure everything, and say which goals were met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--turns", type=int, default=7, help="of all that is compared")
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    result: dict[str, Any] = {"benchmark": "gram", "machine": machine()}
    result["plane"] = {
        f"{bandwidth:g}": side_by_side(bandwidth, arguments.turns) for bandwidth in ERRORS
    }
    result["wide"] = wide_tiles(100, 2000, 1024, arguments.turns)
    with tempfile.TemporaryDirectory() as folder:
        result["wide"]["peak_bytes"] = peak_of_tiles(Path(folder), 12, 2000, 1024)
        result["paper"] = paper_population(Path(folder), 5000, 1000)
    plane, wide = result["plane"], result["wide"]
    result["goals"] = GOALS
    result["met"] = {
        "quadrature_over_keops": {
            bandwidth: found.get("quadrature_over_keops", 0) >= GOALS["quadrature_over_keops"]
            for bandwidth, found in plane.items()
        },
        "relative_error": {
            bandwidth: found["quadrature_error"] <= GOALS["relative_error"]
            for bandwidth, found in plane.items()
        },
        "paper_seconds": result["paper"]["seconds"] <= GOALS["paper_seconds"],
        "tiles_over_product": wide["tiles_over_product"] >= GOALS["tiles_over_product"],
        "ahead_of_peers": min(wide["tiles_over_peers"].values()) > 1,
        "peak_bytes": wide["peak_bytes"] <= GOALS["peak_bytes"],
    }
    finish(result, arguments.out)


if __name__ == "__main__":
    main()
