"""Leaves: the same in Python and in the SQL of a warehouse, by the id alone, and only numbers that divide."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.histories.buckets import check_division, leaf_of

IDS = [
    "u1",
    "Jörg Müßig",
    "ÄÖÜ",
    "日本語",
    "😀",
    "17",
    "007",
    " a ",
    "a|b'c\"",
    "x" * 5000,
    "anna@example.com",
    "é",
    "é",
]


def ids(n: int) -> np.ndarray:
    return np.array([*IDS, *(f"u{k}" for k in range(n))], dtype=object)


@pytest.mark.parametrize("leaves", [1, 64, 4096])
def test_leaves_are_those_of_sql(leaves):
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    import pyarrow as pa

    table = pa.table({"user_id": pa.array(ids(3000).tolist(), pa.string())})
    sql = f"select ('0x' || substr(md5(user_id), 1, 3))::integer % {leaves} as leaf from table_of_ids"
    found = duckdb.connect().register("table_of_ids", table).sql(sql).fetchnumpy()["leaf"]
    np.testing.assert_array_equal(leaf_of(ids(3000), leaves), found)


@pytest.mark.slow
def test_leaves_are_those_of_spark_sql(tmp_path):
    """The recipe of docs/buckets.md for Databricks."""
    sql = pytest.importorskip("pyspark.sql", reason="PySpark is not installed")
    session = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"user_id": pa.array(ids(500).tolist(), pa.string())}), tmp_path / "ids.parquet")
        session.read.parquet(str(tmp_path / "ids.parquet")).createOrReplaceTempView("ids")
        recipe = "CAST(CONV(SUBSTR(MD5(CAST(user_id AS STRING)), 1, 3), 16, 10) AS INT) % 64"
        found = {row[0]: row[1] for row in session.sql(f"SELECT user_id, {recipe} FROM ids").collect()}
    finally:
        session.stop()
    np.testing.assert_array_equal(leaf_of(ids(500)), [found[one] for one in ids(500)])


def test_known_values():
    """MD5 of `u1` begins with e47, of `17` with 70e."""
    np.testing.assert_array_equal(leaf_of(np.array(["u1", "17"], dtype=object), 4096), [0xE47, 0x70E])
    np.testing.assert_array_equal(leaf_of(np.array(["u1", "17"], dtype=object)), [0xE47 % 64, 0x70E % 64])


def test_a_number_is_its_digits():
    numbers = np.arange(1000)
    np.testing.assert_array_equal(leaf_of(numbers), leaf_of(numbers.astype(str).astype(object)))
    assert leaf_of(np.array([], dtype=object)).shape == (0,)


def test_half_a_pair_of_utf_16_has_a_leaf():
    assert 0 <= leaf_of(np.array(["\ud83d"], dtype=object))[0] < 64


def test_leaves_are_about_equally_large():
    leaf = leaf_of(ids(64_000))
    # 1,000 users a leaf are expected; five binomial standard deviations are 157.
    assert np.abs(np.bincount(leaf, minlength=64) - 1000).max() < 157


@pytest.mark.parametrize(("leaves", "buckets"), [(64, 3), (64, 128), (64, 0), (63, 1), (0, 1), (8192, 1), (-2, 1)])
def test_numbers_that_do_not_divide_are_refused(leaves, buckets):
    with pytest.raises(ConfigError, match=r"leaves|at least 1"):
        check_division(leaves, buckets)


@pytest.mark.parametrize("buckets", [1, 2, 8, 64])
def test_numbers_that_divide_are_not(buckets):
    check_division(64, buckets)
