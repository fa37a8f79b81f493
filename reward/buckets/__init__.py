"""Rewards of a history in buckets of users: passes over the buckets, between which only small sums are kept."""

from crosschannel.reward.buckets.did import (
    ControlSquares,
    ControlSums,
    bucket_rewards,
    control_squares,
    control_sums,
    fit_did,
)

__all__ = ["ControlSquares", "ControlSums", "bucket_rewards", "control_squares", "control_sums", "fit_did"]
