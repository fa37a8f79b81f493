"""Groups by an attribute follow from counts of its values, and from the counts of parts of the users."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pandas as pd
import pytest

from crosschannel.reward.effects.groups import (
    MAX_ATTRIBUTE_GROUPS,
    QUANTILE_GROUPS,
    AttributeGroups,
    add_counts,
    count_values,
)

RNG = np.random.default_rng(100)
USERS = 400
LACKS = RNG.random(USERS) < 0.1
NUMBER = np.where(LACKS, np.nan, RNG.normal(size=USERS).round(2))
COLUMNS = {
    "whole numbers": pd.Series(RNG.integers(0, 90, USERS)),
    "numbers, some missing": pd.Series(NUMBER),
    "few numbers, some missing": pd.Series(np.where(LACKS, np.nan, RNG.integers(0, 3, USERS))),
    "text, some missing": pd.Series(np.where(LACKS, None, RNG.choice(["a", "b", "c"], USERS)), dtype=object),
    "many texts": pd.Series([f"city {k}" for k in RNG.geometric(0.05, USERS)], dtype=object),
    "truth, some missing": pd.Series(np.where(LACKS, None, RNG.random(USERS) < 0.5)).astype("boolean"),
    "truth": pd.Series(RNG.random(USERS) < 0.5),
    "dates": pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(RNG.integers(0, 300, USERS), "D")),
    "few dates": pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(RNG.integers(0, 3, USERS) * 12, "h")),
    "nothing": pd.Series(np.full(USERS, np.nan)),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_parts_have_the_groups_of_all_users(name: str) -> None:
    column = COLUMNS[name]
    whole = AttributeGroups.fit("x", count_values(column)).masks(column)
    covered = np.sum([mask for _, mask in whole], axis=0)
    np.testing.assert_array_equal(covered, 1)
    part = RNG.integers(0, 5, USERS)
    parts = [column[part == k] for k in range(5)]
    groups = AttributeGroups.fit("x", reduce(add_counts, map(count_values, parts)))
    assert groups.labels == tuple(label for label, _ in whole)
    for k, some in enumerate(parts):
        for (_, mine), (_, mask) in zip(groups.masks(some), whole, strict=True):
            np.testing.assert_array_equal(mine, mask[part == k])


def test_numbers_are_cut_at_the_quantiles_of_users() -> None:
    column = COLUMNS["numbers, some missing"]
    assert column.nunique() > MAX_ATTRIBUTE_GROUPS
    edges = np.nanquantile(NUMBER, np.linspace(0, 1, QUANTILE_GROUPS + 1))
    found = AttributeGroups.fit("x", count_values(column)).masks(column)
    for k, (label, mask) in enumerate(found[:-1]):
        below = edges[k + 1] >= NUMBER if k == QUANTILE_GROUPS - 1 else edges[k + 1] > NUMBER
        assert label == f"x {edges[k]:g} to {edges[k + 1]:g}"
        np.testing.assert_array_equal(mask, (edges[k] <= NUMBER) & below)
    assert found[-1][0] == "x missing"
    np.testing.assert_array_equal(found[-1][1], LACKS)
