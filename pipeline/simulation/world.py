"""The simulated app of a loop: it executes decisions, answers by events, and writes its log day by day."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, ObjectArray
from crosschannel.core.errors import ConfigError, Fault, nearest, raise_faults
from crosschannel.core.hashing import keys
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import DAY
from crosschannel.envs.market import LiveMarket, Market, Population, StepResult, make_policy
from crosschannel.envs.market.vocabulary import EVENTS, MODULES, START
from crosschannel.histories.arms import BUSINESS_AS_USUAL, assign_arms
from crosschannel.histories.logs import DecisionLog, decisions_frame, listed_actions
from crosschannel.histories.readers.daily import DailyLog
from crosschannel.histories.readers.decided.days import DECISIONS_FILE
from crosschannel.histories.readers.source_files import read_parquet
from crosschannel.histories.values.action_columns import action_codes
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.loop.settings import ActionChange


@dataclass
class World:
    """A simulated app whose users are in arms.

    Attributes:
        live: The market's users.
        log: The app's log: the events of all users, and the decisions of business as usual.
        arm: Arm of each user (N,).
        changes: What marketers add and retire.
        active_days: Days on which the policy learns and marketers change actions; None for all.
    """

    live: LiveMarket
    log: DailyLog
    arm: ObjectArray
    changes: tuple[ActionChange, ...]
    active_days: int | None = None

    @classmethod
    def start(cls, config: Config, folder: Path) -> World:
        """Return the app before its first slot, with the warm-up in its log.

        Raises:
            ConfigError: If marketers change an action that the market does not have.
        """
        market = Market(config.market())
        _check_changes(config.loop.marketers)
        live = LiveMarket.start(market, Population(config.loop.late, config.loop.leaving))
        name = f"market ({market.config.scenario}, closed loop)"
        log = DailyLog(path=folder, name=name, modules=MODULES, event_names=EVENTS, start=START, ties="after")
        arm = assign_arms(live.user_ids, config.arms, live.state.users.attributes())
        out = cls(live=live, log=log, arm=arm, changes=config.loop.marketers, active_days=config.loop.active_days)
        if not log.exists:
            log.create()
        if not log.folder(START).is_dir():
            out.write_users()
        for day in range(market.config.warmup_days):
            if not log.folder(START + day * DAY).is_dir():
                log.write_day(START + day * DAY, out._usual_decisions(None), live.events_frame(day))
        return out

    def write_users(self) -> None:
        """Write the table of the users who are known before the next slot."""
        self.log.write_users(self.live.users_frame())

    def eligible(self, user_ids: ObjectArray) -> BoolArray:
        """Return what may be sent to users (U,) at the next slot, as the app's own file of eligibility says."""
        mask = self._mask()
        known = pd.Index(self.live.user_ids).get_indexer(pd.Index(user_ids))
        return np.asarray(mask[known])

    def step(self, decided: Path) -> StepResult:
        """Execute the decisions of a day's folder and those of business as usual, and write the day's log."""
        live, day, time = self.live, self.live.day, self.live.time
        usual = make_policy(BUSINESS_AS_USUAL, live.market).choose(live.market, live.state)
        mask = self._mask()
        fits = np.ones(len(mask), dtype=bool)
        for part, column in zip(MODULES.split(mask), usual.actions.T, strict=True):
            fits &= part[np.arange(len(part)), column]
        # What marketers have retired, their own rules do not send either.
        actions = np.where(fits[:, None], usual.actions, 0)
        probability = np.where(fits[:, None], usual.probabilities, np.nan)
        mine = self.arm != BUSINESS_AS_USUAL
        actions[mine] = 0
        rows, chosen = self._read_decisions(decided / DECISIONS_FILE)
        actions[rows] = chosen
        usual_rows = np.flatnonzero(~mine & live.state.subscribed)
        log = self._decision_log(usual_rows, actions, probability, mask, time)
        result = live.step(MODULES.canonical(actions))
        if not self.log.folder(time).is_dir():
            # The table of users comes first: no day names a user who is not in it.
            self.write_users()
            self.log.write_day(time, self._usual_decisions(log), live.events_frame(day))
        return result

    def _read_decisions(self, file: Path) -> tuple[IntArray, IntArray]:
        """Return the users of a day's decisions (n,), and what is sent to them (n, M).

        Raises:
            InputError: If the file does not hold decisions for the app's users in the arms that the policy decides for.
        """
        faults: list[Fault] = []
        table = TableValidator(read_parquet(file), str(file), faults)
        table.require(["user_id", *MODULES.names])
        raise_faults(faults)
        rows = pd.Index(self.live.user_ids).get_indexer(pd.Index(table.texts("user_id")))
        table.flag_rows("user_id", rows < 0, "the app has no such user", "Decide for the day again.")
        usual = (rows >= 0) & (self.arm[rows] == BUSINESS_AS_USUAL)
        problem = f"another system decides for the user, whose arm is {BUSINESS_AS_USUAL}"
        table.flag_rows("user_id", usual, problem, "Leave the row out.")
        actions = action_codes(table, MODULES)
        raise_faults(faults)
        return rows.astype(np.int64), actions

    def eligible_frame(self) -> pd.DataFrame:
        """Return what may be sent to the users who are known before the next slot, as `decide --eligible` reads it."""
        user_ids = self.live.users_frame()["user_id"].to_numpy(dtype=object)
        return pd.DataFrame({"user_id": user_ids, **listed_actions(self.eligible(user_ids), MODULES, "eligible")})

    def best_effect(self) -> FloatArray:
        """Return the largest expected effect (N,) of what may be sent at the next slot: what an oracle would choose."""
        return self.live.market.best_action(self.live.state, self._mask())[0]

    def _mask(self) -> BoolArray:
        """Return what may be sent to everybody (N, sum of actions), with what marketers have added and retired."""
        mask = self.live.market.mask(self.live.state)
        slot = self.live.day - self.live.market.config.warmup_days
        if self.active_days is not None:
            slot = min(slot, self.active_days)  # with the policy the actions are frozen
        parts = MODULES.split(mask)
        for change in self.changes:
            for names, absent in ((change.add, slot < change.day), (change.retire, slot >= change.day)):
                for module, actions in names.items():
                    part = parts[MODULES.names.index(module)]
                    codes = [MODULES[module].actions.index(action) for action in actions]
                    part[:, codes] &= not absent
        return mask

    def _decision_log(
        self, rows: IntArray, actions: IntArray, probability: FloatArray, mask: BoolArray, time: int
    ) -> DecisionLog:
        ids = self.live.user_ids[rows] + f"-{self.live.day:03d}"
        return DecisionLog(
            id=ids,
            key=keys(ids),
            user=rows,
            time=np.full(len(rows), time, dtype=np.int64),
            actions=actions[rows],
            propensity=probability[rows],
            joint=np.multiply.reduce(probability[rows], axis=1),
            policy=np.full(len(rows), BUSINESS_AS_USUAL, dtype=object),
            eligible=mask[rows],
        )

    def _usual_decisions(self, log: DecisionLog | None) -> pd.DataFrame:
        """Return the decisions of business as usual in the native columns; without a row during the warm-up."""
        if log is None:
            columns = ["decision_id", "user_id", "time", *MODULES.names]
            return pd.DataFrame({name: pd.Series(dtype=object) for name in columns})
        return decisions_frame(log, self.live.user_ids, MODULES)

    def users_of(self, arm: str) -> BoolArray:
        """Return which users are in an arm (N,)."""
        return np.asarray(self.arm == arm, dtype=bool)


def _check_changes(changes: tuple[ActionChange, ...]) -> None:
    for change in changes:
        for module, actions in (*change.add.items(), *change.retire.items()):
            if module not in MODULES.names:
                raise ConfigError(f"loop.marketers: no module {module!r}. {nearest(module, MODULES.names)}")
            for action in actions:
                if action not in (known := MODULES[module].actions):
                    raise ConfigError(f"loop.marketers: no action {action!r}. {nearest(action, known)}")
