from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from sno_dist.embedding import gram
from sno_dist.embedding.gram import gram_matrix, panels_of
from sno_dist.embedding.kernels import Gaussian, Laplace
from sno_dist.errors import Preempted
from sno_dist.runtime import preemption

LENGTHS = (5, 40, 1, 17, 30, 8, 22)


@dataclass
class MemorySets:
    """Ragged sets in memory, which count how often a panel is read."""

    lengths: Sequence[int] = LENGTHS
    dims: int = 3
    reads: int = 0
    before: Callable[[int], None] = lambda _: None
    rows: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        source = torch.Generator().manual_seed(0)
        self.rows = torch.randn(sum(self.lengths), self.dims, generator=source, dtype=torch.float64)

    def panel(self, items: Sequence[int]) -> torch.Tensor:
        self.before(self.reads)
        self.reads += 1
        return torch.cat([self.rows.split(list(self.lengths))[item] for item in items])


@pytest.fixture
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "PANEL_BYTES", 8 * 3 * 45)


def exact(sets: MemorySets) -> torch.Tensor:
    parts = sets.rows.split(list(sets.lengths))
    return torch.stack([torch.stack([Gaussian(0.9)(a, b).mean() for b in parts]) for a in parts])


@pytest.mark.usefixtures("_small_tiles")
def test_the_matrix_is_the_mean_kernel_of_all_pairs(tmp_path: Path) -> None:
    sets = MemorySets()
    found = gram_matrix(sets, Gaussian(0.9), tmp_path / "tiles")
    torch.testing.assert_close(found, exact(sets), rtol=0, atol=1e-14)
    assert (found == found.T).all()
    assert len(panels_of(sets.lengths, sets.dims)) == 4
    assert len(list((tmp_path / "tiles").iterdir())) == 4 * 5 // 2


def test_panels_hold_whole_sets_in_order_and_are_bounded() -> None:
    for dims, lengths in ((2, [1000] * 200), (1024, [2000] * 100), (2, [10**6, 3, 3])):
        panels = panels_of(lengths, dims)
        assert [item for panel in panels for item in panel] == list(range(len(lengths)))
        sizes = [sum(lengths[item] for item in panel) for panel in panels]
        most = max(gram.PANEL_BYTES / (8 * dims), *lengths)
        assert all(size <= most for size in sizes)
    assert len(panels_of([1000] * 200, 2)) > 8
    assert [len(panel) for panel in panels_of([10**6, 3, 3], 2)] == [1, 2]


@pytest.mark.usefixtures("_small_tiles")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
@pytest.mark.parametrize("moment", [0, 1, 6, 13])
def test_a_kill_loses_the_running_tile_alone(tmp_path: Path, moment: int) -> None:
    def die(reads: int) -> None:
        if reads == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        gram_matrix(MemorySets(before=die), Gaussian(0.9), tmp_path)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    again, whole = MemorySets(), MemorySets()
    found = gram_matrix(again, Gaussian(0.9), tmp_path)
    torch.testing.assert_close(found, exact(again), rtol=0, atol=1e-14)
    gram_matrix(whole, Gaussian(0.9), tmp_path / "other")
    # Of what was read before the kill, no more than the two panels of one tile is read again.
    assert whole.reads <= again.reads + moment <= whole.reads + 1


@pytest.mark.usefixtures("_small_tiles")
def test_a_preempted_matrix_keeps_its_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = MemorySets()
    monkeypatch.setattr(preemption, "requested", lambda: sets.reads >= 5)
    with pytest.raises(Preempted, match="Gram"):
        gram_matrix(sets, Gaussian(0.9), tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(gram, "PANEL_BYTES", 8 * 3 * 45)
    kept = sorted(tmp_path.glob("*.npy"))
    assert 2 <= len(kept) <= 5
    before = {path: path.stat().st_mtime_ns for path in kept}
    torch.testing.assert_close(
        gram_matrix(sets, Gaussian(0.9), tmp_path), exact(sets), rtol=0, atol=1e-14
    )
    assert before == {path: path.stat().st_mtime_ns for path in kept}


def test_another_kernel_without_tiles(tmp_path: Path) -> None:
    sets = MemorySets(lengths=(6, 9))
    found = gram_matrix(sets, Laplace(1.0), tmp_path)
    a, b = sets.rows.split([6, 9])
    assert float(found[0, 1]) == pytest.approx(float(Laplace(1.0)(a, b).mean()), abs=1e-15)
    assert np.load(next(tmp_path.iterdir())).shape == (2, 2)
