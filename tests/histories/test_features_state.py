"""The state of context features: built again as it was, or refused with the part that is not what was stored."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.histories.features import ContextFeatures
from tests.samples import random_history

HISTORY = random_history(0)
FEATURES = ContextFeatures.fit(HISTORY)


def state() -> dict[str, Any]:
    return dict(json.loads(json.dumps(FEATURES.state_dict())))


def test_a_state_gives_the_same_contexts():
    again = ContextFeatures.from_state_dict(state())
    np.testing.assert_array_equal(again.transform(HISTORY), FEATURES.transform(HISTORY))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["mean"].pop(), "a mean and a positive scale each"),
        (lambda s: s["scale"].append(1.0), "a mean and a positive scale each"),
        (lambda s: s["names"].pop(), "a mean and a positive scale each"),
        (lambda s: s["scale"].__setitem__(0, 0.0), "a mean and a positive scale each"),
        (lambda s: s["mean"].__setitem__(0, math.nan), "a mean and a positive scale each"),
        (lambda s: s["mean"].__setitem__(0, [1]), r"mean\[0\]: expected a number"),
        (lambda s: s.update(names="abc"), "names: expected a list"),
        (lambda s: s["layout"].update(windows=["2d"]), r"layout\.windows\[0\]: expected a list"),
        (lambda s: s["layout"].update(clock="yes"), r"layout\.clock: expected true or false"),
        (lambda s: s["layout"].update(groups=[["a", 7]]), r"layout\.groups"),
        (lambda s: s["layout"].update(more=1), "unknown key 'more'"),
        (lambda s: s["attributes"].update(categories=[["plan", "abc"]]), r"attributes\.categories"),
        (lambda s: s["attributes"].update(dates=[["joined", 0.5]]), r"attributes\.dates"),
    ],
)
def test_what_is_not_a_state_is_named(change, message):
    changed = state()
    change(changed)
    with pytest.raises(ConfigError, match=message):
        ContextFeatures.from_state_dict(changed)
