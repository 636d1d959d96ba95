from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sno_dist.errors import ArtifactError, Preempted
from sno_dist.judge import find
from sno_dist.judge.find import find_judge
from sno_dist.judge.train import train_classifier
from sno_dist.runtime import preemption
from sno_dist.shards.build import build_shards
from sno_dist.shards.sources.factory import make_source
from tests.unit.shards.small import small_config


def test_a_judge_asked_to_stop_leaves_nothing_and_then_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path, "judge.width=4", "judge.batch=100", "judge.min_updates=2")
    manifest = build_shards(config)
    asked = iter((False, True))
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "requested", lambda: next(asked))
        with pytest.raises(Preempted, match="asked to stop while training the judge"):
            find_judge(config, manifest)
    assert not (tmp_path / "run/judge").exists()
    judge = find_judge(config, manifest)
    assert judge is not None
    assert (tmp_path / "run/judge/COMPLETE").is_file()


def test_a_judge_learns_from_samples_that_are_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path, "judge.width=4", "judge.min_updates=1")
    manifest, learnt = build_shards(config), []

    def watched(images: NDArray[np.uint8], labels: NDArray[np.integer], *rest: Any, **named: Any):
        learnt.append((images, labels))
        return train_classifier(images, labels, *rest, **named)

    monkeypatch.setattr(find, "train_classifier", watched)
    find_judge(config, manifest)
    ((images, labels),) = learnt
    source = make_source(config.shards.source, config.shards.split)
    for label, entry in enumerate(manifest.entries):
        own = source.draw(entry.name, "judge")
        np.testing.assert_array_equal(images[labels == label], own)


def test_a_judge_serves_other_splits_and_no_other_samples(tmp_path: Path) -> None:
    words = (f"judge.path={tmp_path}/judge", "judge.width=4", "judge.min_updates=1")
    made = []
    for split in (0, 1):
        own = small_config(tmp_path / f"{split}", f"shards.split.seed={split}", *words)
        manifest = build_shards(own)
        find_judge(own, manifest)
        made.append((manifest.digest, (tmp_path / "judge/COMPLETE").stat().st_mtime_ns))
    assert made[0][0] != made[1][0]
    assert made[0][1] == made[1][1]
    other = small_config(tmp_path / "other", "shards.source.judge=30", *words)
    with pytest.raises(ArtifactError, match="the judge here was made of other settings or data"):
        find_judge(other, build_shards(other))


def test_a_damaged_judge_is_told(tmp_path: Path) -> None:
    config = small_config(tmp_path, "judge.width=4", "judge.min_updates=1")
    manifest = build_shards(config)
    find_judge(config, manifest)
    weights = tmp_path / "run/judge/classifier.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(ArtifactError, match=r"is damaged \| at: .*classifier\.safetensors"):
        find_judge(config, manifest)
