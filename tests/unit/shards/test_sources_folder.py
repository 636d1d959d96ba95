from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sno_dist.config.schema import Folder, Split
from sno_dist.errors import ConfigError, DataError
from sno_dist.shards.sources.factory import make_source
from sno_dist.shards.sources.folder import FolderSource, deal
from sno_dist.shards.sources.groups import safe_names


def make(path: Path, split: Split | None = None, **settings: object) -> FolderSource:
    source = make_source(Folder(kind="folder", path=str(path), **settings), split or Split())
    assert isinstance(source, FolderSource)
    return source


def write_npz(path: Path, counts: dict[str, int], width: int = 2) -> Path:
    """Every value of the file is different, so a sample tells where it came from."""
    values = np.arange(sum(counts.values()) * width, dtype=float).reshape(-1, width)
    parts = np.split(values, np.cumsum(list(counts.values()))[:-1])
    np.savez(path / "data.npz", **dict(zip(counts, parts, strict=True)))
    return path


def test_every_sample_is_in_one_role(tmp_path: Path) -> None:
    source = make(write_npz(tmp_path, {"a": 40, "b": 13, "c": 4}), reference=0.25)
    assert source.roles == ("model", "reference")
    for name, count, held in (("a", 40, 10), ("b", 13, 3), ("c", 4, 1)):
        model, reference = source.draw(name, "model"), source.draw(name, "reference")
        assert (len(model), len(reference)) == (count - held, held)
        assert len(np.unique(np.concatenate([model, reference]), axis=0)) == count
    assert not (np.diff(source.draw("a", "model")[:, 0]) > 0).all()  # dealt, not cut
    again = make(tmp_path, Split(seed=9), reference=0.25)
    assert (again.draw("a", "model") == source.draw("a", "model")).all()


def test_deal_gives_each_share_one_sample_at_least() -> None:
    roles = deal(4, {"reference": 0.01, "judge": 0.01}, "a")
    assert {role: len(rows) for role, rows in roles.items()} == {
        "model": 2,
        "reference": 1,
        "judge": 1,
    }
    assert list(deal(4, {"reference": 0.0}, "a")) == ["model"]
    assert sorted(np.concatenate(list(roles.values()))) == [0, 1, 2, 3]


def test_splits_are_fixed_by_the_source(tmp_path: Path) -> None:
    path = write_npz(tmp_path, {f"g{i}": 10 for i in range(10)})
    splits = [d.split for d in make(path, Split(unseen=0.4)).distributions()]
    assert splits.count("unseen") == 4
    assert splits.count("seen") == 6


def test_audit_counts_duplicates_across_roles(tmp_path: Path) -> None:
    source = make(write_npz(tmp_path, {"a": 20, "b": 20}), reference=0.25)
    assert source.audit() == {
        "samples": {"model": 30, "reference": 10},
        "shared": {"model+reference": 0},
        "shared_total": 0,
        "renamed": {},
    }
    # The same rows in both distributions, each group dealt its own way: a model sample of one is
    # a reference sample of the other wherever the two deals differ.
    rows = np.arange(40.0).reshape(20, 2)
    np.savez(tmp_path / "data.npz", a=rows, b=rows)
    source = make(tmp_path, reference=0.25)
    model = {tuple(r) for name in "ab" for r in source.draw(name, "model").tolist()}
    reference = {tuple(r) for name in "ab" for r in source.draw(name, "reference").tolist()}
    assert source.audit()["shared_total"] == len(model & reference) > 0


def test_names_become_legal_and_stay_unique(tmp_path: Path) -> None:
    given = ["plain", "a/b", "a:b", "v1.5", "Case", "case", "..", "", "é", "x" * 300]
    names = safe_names(given)
    assert list(names.values()) == given
    assert next(iter(names)) == "plain"
    assert len({name.casefold() for name in names}) == len(given)
    for name in names:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
        assert 0 < len(name.encode()) < 100
    assert safe_names(["a/b"]) == {next(n for n, g in names.items() if g == "a/b"): "a/b"}
    np.savez(tmp_path / "data.npz", **{"n/1": np.ones((9, 2)), "n": np.zeros((9, 2))})
    source = make(tmp_path)
    renamed = source.audit()["renamed"]
    assert list(renamed.values()) == ["n/1"]
    assert (source.draw(next(iter(renamed)), "model") == 1).all()


def test_a_name_in_another_encoding_is_refused() -> None:
    with pytest.raises(DataError, match=r"name is not text.*caf.*expected: UTF-8"):
        safe_names([b"caf\xe9".decode(errors="surrogateescape")])


def test_too_few_samples(tmp_path: Path) -> None:
    path = write_npz(tmp_path, {"many": 30, "few": 2})
    with pytest.raises(DataError, match=r"'few' has too few samples.*got: 2, of which 1 for the m"):
        make(path)
    assert make(path, reference=0.0).roles == ("model",)


@pytest.mark.parametrize("rows", [0, 1])
def test_no_samples_to_speak_of(tmp_path: Path, rows: int) -> None:
    np.save(tmp_path / "a.npy", np.zeros((rows, 3)))
    with pytest.raises(DataError, match=rf"'a' has too few samples.*got: {rows}, of which 0"):
        make(tmp_path)


def test_paths_that_hold_nothing_of_use(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file or folder \| at: .*missing \|"):
        make(tmp_path / "missing")
    with pytest.raises(DataError, match=r"found no distributions.*got: nothing"):
        make(tmp_path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden").mkdir()
    with pytest.raises(DataError, match=r"found no distributions.*got: notes\.txt"):
        make(tmp_path)
    (tmp_path / "cats").mkdir()
    np.save(tmp_path / "a.npy", np.zeros((9, 3)))
    with pytest.raises(DataError, match=r"found both folders and arrays.*a\.npy, cats"):
        make(tmp_path)


def test_settings_that_contradict(tmp_path: Path) -> None:
    path = write_npz(tmp_path, {"a": 9})
    with pytest.raises(ConfigError, match=r"group and columns belong to tables"):
        make(path, group="name")
    with pytest.raises(ConfigError, match=r"vectors have no height"):
        make(path, size=(8, 8))
    with pytest.raises(ConfigError, match=r"leave nothing for the model"):
        make(path, reference=1.0)
