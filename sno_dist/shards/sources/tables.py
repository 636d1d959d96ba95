"""One CSV or Parquet table: a column names the distribution, the others are the sample."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sno_dist.errors import ConfigError, DataError
from sno_dist.shards.sources.groups import Rounding
from sno_dist.shards.sources.source import Domain

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Table", "read_table"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A table in memory; `Groups`.

    Args:
        rows: Each group's rows, (n, D) float32.
    """

    rows: Mapping[str, NDArray[np.float32]]

    @property
    def domain(self) -> Domain:
        """Vectors."""
        return "vector"

    @property
    def shape(self) -> tuple[int, ...]:
        """(D,): the value columns."""
        return next(iter(self.rows.values())).shape[1:]

    @property
    def sizes(self) -> Mapping[str, int]:
        """Rows per group."""
        return {group: len(rows) for group, rows in self.rows.items()}

    def read(self, group: str, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Some rows of a group: (len(rows), D) float32."""
        return self.rows[group][rows]


def read_table(path: Path, group: str | None, columns: Sequence[str] | None) -> Table:
    """Read a table and take it apart by its group column.

    Args:
        path: A .csv or .parquet file.
        group: The column that names the distribution; read as text, so "01" stays "01".
        columns: The value columns; none: all but the group, in the table's order.

    Raises:
        ConfigError: If the group column is not given, or a value column is the group.
        DataError: If the table cannot be read, lacks a column, is empty, or a value is missing,
            not a number, or not finite as float32, or a column's differences are lost in it.
    """
    if group is None:
        raise ConfigError(
            "a table needs the column that names the distribution",
            where="shards.source.group",
            fix=f"set it to one of the columns of {path}",
        )
    table = _read(path, group)
    values = [c for c in table.columns if c != group] if columns is None else list(columns)
    if columns is None:
        _refuse_row_numbers(values, path)
    for column in (group, *values):
        if column not in table.columns:
            raise DataError(
                f"the table has no column {column!r}",
                where=path,
                got=", ".join(map(str, table.columns)),
                fix="set shards.source.group and shards.source.columns to its columns",
            )
    if group in values or not values or len(set(values)) < len(values):
        raise ConfigError(
            "the value columns are none, repeated, or include the group",
            where="shards.source.columns",
            got=", ".join(values) or "none",
            expected=f"columns other than {group}, each once",
        )
    if table.empty:
        raise DataError("the table has no rows", where=path)
    missing = table[group].isna().to_numpy()
    if missing.any():
        expected = "the name of the row's distribution (NA, null and the like count as none)"
        raise _bad_cell(path, group, missing, "no name", expected)
    exact = np.stack([_numbers(table[column], path) for column in values], axis=1)
    rounding = Rounding()
    rounding.add(exact)
    rounding.check(path, [repr(column) for column in values])
    samples = exact.astype(np.float32)
    return Table(rows=_apart(samples, table[group]))


def _apart(samples: NDArray[np.float32], names: pd.Series) -> dict[str, NDArray[np.float32]]:
    """Each name's rows, in the table's order; in one pass, however many names there are."""
    import pandas as pd

    codes, groups = pd.factorize(names.astype(str).to_numpy(object), sort=True)
    ends = np.bincount(codes).cumsum()
    parts = np.split(samples[np.argsort(codes, kind="stable")], ends[:-1])
    return dict(zip(map(str, groups), parts, strict=True))


def _refuse_row_numbers(columns: Sequence[str], path: Path) -> None:
    """In a table sorted by distribution, a column of row numbers tells them apart by itself."""
    unnamed = [column for column in columns if re.fullmatch(r"Unnamed: \d+", str(column))]
    if unnamed:
        raise DataError(
            "the table has a column without a name",
            where=path,
            got=f"{unnamed[0]!r}, such as pandas writes for the rows' numbers",
            expected="a name for every column",
            fix="write it with to_csv(..., index=False), or set shards.source.columns",
        )


def _read(path: Path, group: str) -> pd.DataFrame:
    import pandas as pd

    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        with warnings.catch_warnings():
            # Rows longer than the header would lose cells with no more than this warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(path, dtype={group: str}, index_col=False, low_memory=False)
    except (OSError, ValueError, ImportError, pd.errors.ParserWarning) as error:
        raise DataError(
            "cannot read the table",
            where=path,
            got=error,
            expected="UTF-8 CSV with a header line, or Parquet (needs pyarrow)",
            fix="check that it opens with pandas.read_csv or pandas.read_parquet",
        ) from error


def _numbers(column: pd.Series, path: Path) -> NDArray[np.float64]:
    import pandas as pd

    name = str(column.name)
    expected = "a finite number within float32 in every row"
    kind = pd.api.types
    if kind.is_datetime64_any_dtype(column) or kind.is_timedelta64_dtype(column):
        first = np.arange(len(column)) == 0
        raise _bad_cell(path, name, first, str(column.iloc[0]), f"{expected}, not a time")
    with np.errstate(over="ignore"):
        parsed = pd.Series(pd.to_numeric(column, errors="coerce"))
        if kind.is_complex_dtype(parsed):
            first = np.arange(len(column)) == 0
            raise _bad_cell(path, name, first, str(column.iloc[0]), expected)
        exact = parsed.to_numpy(np.float64, na_value=np.nan)
        bad = ~np.isfinite(exact.astype(np.float32))
    if not bad.any() and not kind.is_numeric_dtype(column):
        # Numbers kept as text, such as postal codes, are more likely names than values.
        bad = column.map(lambda value: isinstance(value, str)).to_numpy(bool)
    if bad.any():
        value = column.iloc[int(np.argmax(bad))]
        got = "a missing value" if pd.isna(value) else repr(value)
        raise _bad_cell(path, name, bad, got, expected)
    return exact


def _bad_cell(
    path: Path, column: str, bad: NDArray[np.bool_], got: str, expected: str
) -> DataError:
    row, count = int(np.argmax(bad)), int(bad.sum())
    return DataError(
        f"column {column!r} has {count} bad value{'s' if count > 1 else ''}",
        where=f"{path}, row {row + 1} (the first after the header is 1)",
        got=got,
        expected=expected,
        fix="drop or fill those rows, or name only the numeric columns in shards.source.columns",
    )
