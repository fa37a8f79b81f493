"""Numbers in sentences."""

from __future__ import annotations

import pytest

from crosschannel.core.wording import counted


@pytest.mark.parametrize(("number", "text"), [(0, "0 days"), (1, "1 day"), (2, "2 days"), (1200, "1,200 days")])
def test_a_noun_is_in_the_plural_unless_there_is_one(number: int, text: str) -> None:
    assert counted(number, "day") == text
