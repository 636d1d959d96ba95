from __future__ import annotations

from sno_dist.evaluation.conditions import Condition, conditions
from sno_dist.shards.manifest import Entry


def test_every_key_is_read_as_it_was_written() -> None:
    drawn = [
        Condition(method=method, k=k)
        for method in ("operator", "individual", "jitter")
        for k in (None, 1, 100)
    ]
    entries = [
        Entry(name=name, split=split, roles={})
        for name, split in (("00-02-14-54", "seen"), ("all", "unseen"), ("k1", "unseen"))
    ]
    found = conditions(own.key(entry) for own in drawn for entry in entries)
    assert found == {(entry.split, entry.name): drawn for entry in entries}


def test_keys_are_those_of_the_sampling_stage() -> None:
    found = conditions(["unseen/nearest-k10/x", "unseen/k10/x", "seen/all/x"])
    assert found["unseen", "x"] == [Condition(method="nearest", k=10), Condition(k=10)]
    assert found["seen", "x"] == [Condition()]
