from __future__ import annotations

from pathlib import Path

import pytest

from sno_dist.errors import ArtifactError, Preempted
from sno_dist.judge.find import find_judge
from sno_dist.runtime import preemption
from sno_dist.shards.build import build_shards
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
