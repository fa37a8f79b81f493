"""Refuse to send anything to anybody where the users' table seems to know better."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import ConfigError
from crosschannel.histories import Guardrails, History, consent_columns


def open_columns(history: History, guardrails: Guardrails, ignored: Collection[str]) -> list[str]:
    """Return the columns of the users that look like consent, and that neither guardrails nor the user has mentioned.

    Raises:
        ConfigError: If an ignored column does not exist.
    """
    known = () if history.users is None else tuple(map(str, history.users.columns))
    if absent := [name for name in ignored if name not in known]:
        raise ConfigError(
            f"--ignore-columns {absent[0]}: the users have no such column, only {', '.join(known) or 'none'}"
        )
    settled = {*guardrails.consent_attributes, *ignored}
    return [name for name in consent_columns(history.users, history.modules[0].actions[1:]) if name not in settled]


def everything(modules: ActionSpace, eligible: BoolArray) -> bool:
    """Return whether every channel is eligible (U, sum of actions) for every user."""
    return bool(modules.split(eligible)[0].all())


def refuse_open(columns: Sequence[str], modules: ActionSpace) -> None:
    """Refuse to send everything to everybody although there are columns of consent.

    Raises:
        ConfigError: If there are.
    """
    if columns:
        example = f"{{{modules[0].actions[1]}: {columns[0]}}}"
        raise ConfigError(
            "everything would be eligible for everybody, but columns of the users look like consent or reachability: "
            f"{', '.join(columns)}. Write what they mean: --guardrails.reachable '{example}' if true means that "
            f"the channel may be used, --guardrails.opted-out '{example}' if true means that it must not "
            f"be; or give --eligible FILE; or, if they limit nothing, --ignore-columns {' '.join(columns)}"
        )


def check_consent(history: History, eligible: BoolArray, guardrails: Guardrails, ignored: Collection[str]) -> None:
    """Refuse to send anything to anybody where the users' table seems to know better.

    Raises:
        ConfigError: If every channel is eligible for every user, although there are columns of consent or reachability
            that neither the guardrails nor the user has mentioned; or if an ignored column does not exist.
    """
    columns = open_columns(history, guardrails, ignored)
    if everything(history.modules, eligible):
        refuse_open(columns, history.modules)
