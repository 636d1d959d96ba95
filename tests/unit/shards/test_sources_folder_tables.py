from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris

from sno_dist.config.schema import Folder, Split
from sno_dist.errors import ConfigError, DataError
from sno_dist.shards.sources.factory import make_source
from sno_dist.shards.sources.folder import FolderSource


def make(path: Path, group: str | None = "g", **settings: object) -> FolderSource:
    config = Folder(kind="folder", path=str(path), group=group, **settings)
    source = make_source(config, Split())
    assert isinstance(source, FolderSource)
    return source


def csv(path: Path, text: str) -> Path:
    (path / "t.csv").write_text(text)
    return path / "t.csv"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_of_real_measurements(tmp_path: Path, suffix: str) -> None:
    iris = load_iris()
    table = pd.DataFrame(iris.data, columns=["sl", "sw", "pl", "pw"])
    table.insert(2, "species", iris.target_names[iris.target])
    path = tmp_path / f"iris.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    source = make(path, "species")
    assert (source.domain, source.shape) == ("vector", (4,))
    assert source.roles == ("model", "reference")
    assert [d.name for d in source.distributions()] == ["setosa", "versicolor", "virginica"]
    drawn = np.concatenate([source.draw("versicolor", role) for role in source.roles])
    assert drawn.dtype == np.float32
    expected = iris.data[50:100].astype(np.float32)
    assert sorted(drawn.tolist()) == sorted(expected.tolist())
    part = make(path, "species", columns=("pw", "sl"))
    drawn = np.concatenate([part.draw("setosa", role) for role in part.roles])
    assert sorted(drawn.tolist()) == sorted(iris.data[:50, [3, 0]].astype(np.float32).tolist())


def test_group_names_stay_text(tmp_path: Path) -> None:
    path = csv(tmp_path, "g,x\n" + "01,1\n1,2\n01,3\n1,4\n01,5\n1,6\n" * 2)
    source = make(path)
    assert [d.name for d in source.distributions()] == ["01", "1"]
    assert set(source.draw("01", "model")[:, 0]) <= {1, 3, 5}


def test_row_numbers_that_pandas_wrote_are_refused(tmp_path: Path) -> None:
    table = pd.DataFrame({"g": ["a"] * 6 + ["b"] * 6, "x": np.arange(12.0)})
    table.to_csv(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"column without a name.*Unnamed: 0.*index=False"):
        make(tmp_path / "t.csv")
    assert make(tmp_path / "t.csv", columns=("x",)).shape == (1,)


def test_differences_beyond_float32_are_refused(tmp_path: Path) -> None:
    seconds = 1.7e9 + 20 * np.random.default_rng(0).normal(size=12)
    table = pd.DataFrame({"g": ["a"] * 6 + ["b"] * 6, "time": seconds, "same": 1.7e9 + 0.1})
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"lost in float32.*column 'time'.*subtract an offset"):
        make(tmp_path / "t.csv")
    # a constant has no differences
    assert make(tmp_path / "t.csv", columns=("same",)).shape == (1,)


def test_numbers_of_every_type(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "g": ["a"] * 4,
            "whole": pd.array([1, 2, 3, 4], dtype="Int64"),
            "small": np.array([1, 2, 3, 4], np.int8),
            "flag": [True, False, True, False],
            "exact": [Decimal("0.25")] * 4,
        }
    )
    table.to_parquet(tmp_path / "t.parquet")
    drawn = make(tmp_path / "t.parquet").draw("a", "model")
    assert drawn.shape == (3, 4)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 2] == drawn[:, 1] % 2).all()
    assert (drawn[:, 3] == 0.25).all()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("1\nn/a?\n3\nx\n", r"column 'x' has 2 bad values \| at: .*t\.csv, row 2 .*got: 'n/a\?'"),
        ("1\n2\n\n4\n", r"column 'x' has 1 bad value \| at: .*, row 3 .*got: a missing value"),
        ("1\nNA\n3\n4\n", r"row 2 .*got: a missing value"),
        ("1\n2\n3\ninf\n", r"row 4 .*got: .*inf.*finite"),
        ("1\n1e39\n3\n4\n", r"row 2 .*got: .*1e\+39.*within float32"),
    ],
)
def test_bad_cells(tmp_path: Path, cells: str, message: str) -> None:
    lines = [f"a,{cell},0" for cell in cells.split("\n")[:-1]]
    path = csv(tmp_path, "\n".join(["g,x,y", *lines]))
    with pytest.raises(DataError, match=message) as caught:
        make(path)
    assert "name only the numeric columns in shards.source.columns" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert make(path, columns=("y",)).shape == (1,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["1", "2", "3", "4"], r"column 'x' has 4 bad values.*row 1 .*got: '1'"),
        ([1.0, 2.0, None, 4.0], r"row 3 .*got: a missing value"),
        (pd.array([1, None, 3, 4], dtype="Int64"), r"row 2 .*got: a missing value"),
        (pd.date_range("2020-01-01", periods=4), r"row 1 .*got: 2020-01-01.*not a time"),
    ],
)
def test_bad_parquet_cells(tmp_path: Path, values: object, message: str) -> None:
    pd.DataFrame({"g": ["a"] * 4, "x": values}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=message):
        make(tmp_path / "t.parquet")


def test_a_row_without_a_name(tmp_path: Path) -> None:
    path = csv(tmp_path, "g,x\na,1\n,2\na,3\n")
    with pytest.raises(DataError, match=r"column 'g' has 1 bad value.*row 2 .*got: no name"):
        make(path)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = csv(tmp_path, "name,x,y\na,1,2\na,1,2\na,1,2\n")
    with pytest.raises(DataError, match=r"no column 'g' \| at: .*t\.csv \| got: name, x, y \|"):
        make(path)
    with pytest.raises(DataError, match=r"no column 'z' "):
        make(path, "name", columns=("x", "z"))
    with pytest.raises(ConfigError, match=r"needs the column that names.*shards\.source\.group"):
        make(path, None)
    for columns in (("x", "name"), ("x", "x"), ()):
        with pytest.raises(ConfigError, match=r"none, repeated, or include the group"):
            make(path, "name", columns=columns)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"cannot read the table.*No columns"),
        (b"g,x\n", r"the table has no rows"),
        (b"g,x\na,1\na,1,2\n", r"cannot read the table.*"),
        (b"g,x\na,1,2\na,1,2\n", r"cannot read the table.*"),
        (b"g,x\n\xff\xfe,1\n", r"cannot read the table.*utf-8"),
    ],
)
def test_damaged_csv(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(DataError, match=message):
        make(tmp_path / "t.csv")


def test_damaged_parquet(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(
        DataError, match=r"cannot read the table \| at: .*t\.parquet \| got: .*arquet"
    ):
        make(tmp_path / "t.parquet")
