from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sno_dist.config.schema import Config
from sno_dist.evaluation.cards import WHOLE, Cards
from sno_dist.evaluation.conditions import Condition
from sno_dist.evaluation.page import shown
from sno_dist.sampling.plan import context_of
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import Entry, Manifest
from sno_dist.shards.reader import Reader
from tests.unit.shards.small import small_config

ONE = Condition(k=1)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Manifest]:
    config = small_config(tmp_path_factory.mktemp("cards"), "sampling.per_context=4")
    return config, build_shards(config)


class Samples:
    """A sample set in memory: sample i of a key is all i."""

    def __init__(self, *keys: str) -> None:
        self.shards = dict.fromkeys(keys)

    def samples(self, key: str) -> np.ndarray:
        assert key in self.shards
        return np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None, None], (20, 1, 8, 16))


def card(digits: tuple[Config, Manifest], entry: Entry, *conditions: Condition) -> Any:
    config, manifest = digits
    samples = Samples(*(own.key(entry) for own in conditions))
    scores = {
        (entry.name, own): SimpleNamespace(accuracy=0.9 if own == WHOLE else None)
        for own in conditions
    }
    made: Any = Cards(config, manifest, samples, scores)  # pyright: ignore[reportArgumentType]
    return made.of(entry)


def test_an_unseen_image_distribution_has_one_card(digits: tuple[Config, Manifest]) -> None:
    config, manifest = digits
    entry = manifest.split("unseen")[0]
    shown = card(digits, entry, WHOLE, ONE, Condition(k=10), Condition(method="resample"))
    assert [panel.title for panel in shown.panels] == ["context", "from K = 1", "from all", "real"]
    context, one, whole, real = shown.panels
    assert (len(context.samples), len(one.samples), len(whole.samples)) == (1, 4, 10)
    reader = Reader(manifest)
    np.testing.assert_array_equal(
        context.samples, reader.take(entry, "model", context_of(config.seed, entry, 1, 0))
    )
    np.testing.assert_array_equal(real.samples, reader.all(entry, "reference")[:10])
    assert (one.note, whole.note, shown.note) == ("", "90.0 % named rightly", "unseen")


def test_a_seen_one_has_what_there_is(digits: tuple[Config, Manifest]) -> None:
    entry = digits[1].split("seen")[0]
    assert [panel.title for panel in card(digits, entry, WHOLE).panels] == ["from all", "real"]


def test_cards_are_spread_over_what_the_operator_drew(digits: tuple[Config, Manifest]) -> None:
    manifest = digits[1]
    seen, unseen = manifest.split("seen"), manifest.split("unseen")
    # as sampling spreads them; of one distribution there is a baseline alone
    drawn = [*seen[::7], *unseen[1::2]]
    keys = [*(WHOLE.key(entry) for entry in drawn), Condition(method="resample").key(unseen[0])]
    found: Any = shown(manifest, Samples(*keys))  # pyright: ignore[reportArgumentType]
    assert found == [*unseen[1::2], *(seen[::7][place] for place in (0, 2, 4, 5, 7, 9))]
