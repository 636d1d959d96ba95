from __future__ import annotations

from pathlib import Path

import pytest

from sno_dist.errors import Preempted
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
