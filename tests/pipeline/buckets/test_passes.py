"""Passes compute on one thread, in the order of the items, and give back what the allocator keeps."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from crosschannel.pipeline.buckets import passes as module
from crosschannel.pipeline.buckets.passes import Passes, give_memory_back


def resident() -> int:
    """Resident memory that is no file's, MiB."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
@pytest.mark.skipif(module._malloc_trim() is None, reason="another C library than glibc")
def test_freed_memory_goes_back() -> None:
    """Every other of many small arrays stays: the holes between them go back to the system all the same."""
    kept = [np.ones(8_192) for _ in range(4_096)]  # 64 KiB each, from the heap
    before = resident()
    del kept[::2]
    give_memory_back()
    assert before - resident() > 64  # of 128 MiB that are free
    assert len(kept) == 2_048


def test_results_come_in_the_items_order(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(module, "give_memory_back", lambda: called.append(True))
    assert list(Passes(shows=False).run(abs, [-3, 1, -2], "numbers")) == [3, 1, 2]
    assert len(called) == 3
