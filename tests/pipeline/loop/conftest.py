"""The run that the tests of the loop share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.loop.samples import daily_log, train_on


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run; its log is `log` beside it."""
    return train_on(daily_log(), tmp_path_factory.mktemp("loop"))
