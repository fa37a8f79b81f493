"""The section on the funnel in the report on effects: components by channel, and the tests of what they assume."""

from __future__ import annotations

import pandas as pd

from crosschannel.core.errors import NotIdentified
from crosschannel.histories.history import History
from crosschannel.reward.funnel.effects import FunnelEffects
from crosschannel.reward.funnel.exclusion import exclusion_test
from crosschannel.reward.funnel.surrogacy import surrogate_tests
from crosschannel.reward.interface import RewardModel
from crosschannel.reward.measurement.outcomes import Outcomes


def funnel_section(model: RewardModel, history: History, outcomes: Outcomes) -> str:
    """Report the components of a history's messages, and test exclusion and surrogates.

    Args:
        model: A reward model whose spec declares a funnel.
        history: The history.
        outcomes: What the model measured on it.
    """
    head = (
        "Funnel: share of messages engaged with, value of those that were (gain) and were not (direct), value of all, "
        "and hazards of cost events, per message; 95 % intervals, clustered by user"
    )
    try:
        effects = FunnelEffects.fit(model, history, outcomes)
    except NotIdentified as error:
        return f"{head}\n\nnot identified: {error}"
    exclusion = exclusion_test(effects)
    parts = [
        head,
        _text(effects.table()),
        "Exclusion: does a message that was not seen do nothing? Direct effects by channel, then by group (chi2 tests)",
        _text(exclusion.table()),
        _text(exclusion.groups_table()),
        "\n".join(f"- {sentence}" for sentence in exclusion.sentences),
    ]
    for test in surrogate_tests(effects):
        prices = ", ".join(f"{name} {price:.4g}" for name, price in test.prices.items())
        parts += [
            f"Surrogates of {test.goal}, with their prices in reward units: {prices}",
            _text(test.table()),
            f"- {test.sentence}",
        ]
    return "\n\n".join(parts)


def _text(table: pd.DataFrame) -> str:
    """Return a table for the terminal, numbers with four digits, and - where there is none."""
    out = table.copy()
    for column in out.select_dtypes("float"):
        out[column] = ["-" if pd.isna(value) else f"{value:.4g}" for value in table[column]]
    return str(out.to_string(index=False))
