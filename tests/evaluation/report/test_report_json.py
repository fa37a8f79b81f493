"""The report as plain values: complete, and strict JSON."""

from __future__ import annotations

import json
from dataclasses import replace

from crosschannel.evaluation import caveats, module_effects, to_dict, verdict
from tests.evaluation.report.samples import identified, not_identified


def test_plain_values_are_strict_json_and_complete():
    good, poor = identified(), not_identified()
    first, second = (json.loads(json.dumps(to_dict(e), allow_nan=False)) for e in (good, poor))
    assert len(first["estimates"]) == len(good.estimates)
    for e, written in zip(good.estimates, first["estimates"], strict=True):
        assert written["value"]["point"] == e.value.point
        assert written["value"]["low"] == e.value.low
        assert written["support"]["ess"] == e.support.ess
        assert written["reason"] == (e.reason or None)
        assert written["identified"] == (e.estimator != "dm")
    weighted = [e for e in second["estimates"] if e["estimator"] != "dm"]
    assert all(e["value"] is None and not e["identified"] and "ESS" in e["reason"] for e in weighted)
    assert second["verdict"] == verdict(poor)
    assert second["caveats"] == caveats(poor)
    assert second["module_effects"] == module_effects(poor)


def test_propensities_are_named_by_their_source():
    assert (
        to_dict(replace(identified(), propensity_counts={"estimated": 3}))["propensities"] == "estimated propensities"
    )
