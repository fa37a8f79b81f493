"""Tables of results that grow: a row for each setting and seed, added to those that are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd


def add_rows(rows: pd.DataFrame, output: Path, keys: Sequence[str], page: Callable[[pd.DataFrame], str]) -> None:
    """Write OUTPUT.csv and OUTPUT.md with new rows beside those that the first has.

    Args:
        rows: New rows; they take the place of rows with equal keys.
        output: The files without their endings.
        keys: Columns that tell rows apart.
        page: Function from all rows to the text of the second file.
    """
    file = output.with_suffix(".csv")
    if file.is_file():
        # A world has the name `null`, which pandas would read as missing.
        rows = pd.concat([pd.read_csv(file, keep_default_na=False, na_values=[""]), rows]).drop_duplicates(
            keys, keep="last"
        )
    rows.to_csv(file, index=False, float_format="%.5f")
    output.with_suffix(".md").write_text(page(rows), encoding="utf-8")
