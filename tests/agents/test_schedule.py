"""A fit is due as rows grow, and once where no more come."""

from __future__ import annotations

from crosschannel.agents.schedule import Schedule


def test_a_fit_is_due_as_rows_grow_and_once_at_the_end() -> None:
    schedule = Schedule(2.0)
    asked = [10, 12, 19, 20, 30, 30, 30, 30, 59, 60]
    assert [schedule.due(seen) for seen in asked] == [
        True, False, False, True, False, True, False, False, False, True,
    ]  # fmt: skip


def test_a_restored_schedule_goes_on() -> None:
    first, second = Schedule(2.0), Schedule(2.0)
    first.due(10)
    first.due(15)
    second.load_state_dict(first.state_dict())
    assert second.due(15)
    assert not second.due(15)
