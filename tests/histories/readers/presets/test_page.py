"""The examples of docs/histories.md, one for each vendor, give the same decisions as one another and as the shop."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from crosschannel.core.serialization import from_dict
from crosschannel.histories.history import History
from crosschannel.histories.readers.presets import PRESETS
from crosschannel.histories.readers.stream.mapping import StreamMapping
from crosschannel.histories.readers.stream.reader import read_stream
from crosschannel.pipeline.configuration import read_config, write_config
from crosschannel.pipeline.reading import build_history
from tests import ROOT
from tests.histories.readers.presets.vendors import MODULES, SENT, VENDORS, shop

SECTION = (ROOT / "docs/histories.md").read_text().split("### Exports of vendors")[1].split("\n### ")[0]
EXAMPLES = {
    name: settings
    for block in re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    for name, settings in yaml.safe_load(block).items()
}


def read(name: str) -> History:
    """Return the history of an example, whose files are in the working directory."""
    VENDORS[name].write(shop(), Path())
    return read_stream(from_dict(StreamMapping, EXAMPLES[name] | {"modules": list(MODULES)}))


def test_there_is_an_example_for_each_vendor():
    assert set(EXAMPLES) == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_the_example_of_a_vendor_reads_its_export(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    history = read(name)
    events = shop()
    # The last day is not whole in the log, so that it has no slots.
    days = events["time"].dt.day
    sent = (events["event"] == SENT) & (days < days.max())
    assert history.modules.sends(history.decisions.actions).sum() == sent.sum() > 20
    paid = history.events_frame()["value"][history.events_frame()["value"] != 1.0]
    assert paid.sum() == pytest.approx(events["revenue"].sum(), abs=1e-9)
    if name != "mixpanel":
        pd.testing.assert_frame_equal(history.decisions_frame(), read("mixpanel").decisions_frame())


def test_the_table_shows_what_the_presets_have():
    for name, preset in PRESETS.items():
        row = next(line for line in SECTION.splitlines() if line.startswith(f"| `{name}` |"))
        written = set(re.findall(r"`([^`]+)`", row)) - {name, "events_*"}
        assert written == {*preset.columns.values(), *preset.fallbacks.values()}


def test_a_configuration_with_a_preset_is_written_and_read_again(tmp_path: Path):
    """A run stores its configuration, and later reads another export of the same layout."""
    first, later = tmp_path / "first", tmp_path / "later"
    VENDORS["segment"].write(shop(), first)
    VENDORS["segment"].write(shop(days=9), later)
    stream = EXAMPLES["segment"] | {"modules": list(MODULES), "rows": {"path": str(first / "segment-logs")}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"name": "a", "history": {"source": "stream", "stream": stream}}))
    config = read_config(tmp_path / "a.yaml")
    write_config(config, tmp_path / "b.yaml")
    again = read_config(tmp_path / "b.yaml")
    assert again == config
    assert len(build_history(again)[0].decisions) == len(build_history(config)[0].decisions) > 0
    moved = replace(again, history=again.history.with_path(later))
    assert len(build_history(moved)[0].decisions) > len(build_history(config)[0].decisions)
