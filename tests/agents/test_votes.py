"""Probabilities from votes on channels, with and without what the channels cost."""

from __future__ import annotations

import numpy as np

from crosschannel.agents.sampling import check_probabilities
from crosschannel.agents.votes import ChannelVotes
from tests.agents.samples import PLAIN, everything


def votes(values: list[list[float]], floor: float = 0.0) -> ChannelVotes:
    """Voters' values (L, A) at one slot."""
    later = (np.full((1, 2), 0.5),)
    mask = np.array([[True, True, False]])
    return ChannelVotes(PLAIN, np.array(values, np.float32)[:, None], np.zeros((0, 1, 3)), (), mask, later, floor)


def test_each_voter_has_one_vote_and_ineligible_channels_none() -> None:
    found = votes([[0.0, 1.0, 9.0], [0.0, -1.0, 9.0], [0.0, 2.0, 9.0], [0.0, 0.0, 9.0]], floor=0.2)
    first, offer = found.probabilities()
    np.testing.assert_allclose(first, [[0.5, 0.5, 0.0]])  # a tie goes to sending nothing
    np.testing.assert_array_equal(offer, 0.5)
    mask = everything(1, PLAIN)
    mask[0, 2] = False
    check_probabilities(PLAIN, [first, offer], mask)


def test_costs_move_votes_to_sending_nothing() -> None:
    found = votes([[0.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    for cost, share in ((0.5, 1.0), (2.0, 0.5), (4.0, 0.0)):
        first, _ = found.probabilities(np.array([[0.0, cost, 0.0]]))
        np.testing.assert_allclose(first[0], [1.0 - share, share, 0.0])
