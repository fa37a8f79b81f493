"""The worlds in which opening, acting and visiting come apart: each has in it what its docstring says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, SECOND
from crosschannel.envs.market import (
    SCENARIOS,
    DayKind,
    Dynamics,
    Market,
    MarketConfig,
    evaluate_policy,
    simulate_history,
)
from crosschannel.envs.market.dynamics.simulated_events import draw_day_kinds
from crosschannel.envs.market.vocabulary import (
    CHANNELS,
    CLICKED,
    DELIVERED,
    MODULES,
    OPENED,
    ORDER,
    SERVICES,
    START,
    VISIT,
)
from crosschannel.histories.goals import Goal
from crosschannel.reward import RewardSpec, make_reward, measure
from crosschannel.reward.effects import TreatmentEffects, average_effect

EMAIL, PUSH, SMS, IN_APP = (CHANNELS.index(name) for name in ("email", "push", "sms", "in_app"))


def log_of(scenario, users, seed=0, **settings):
    market = Market(MarketConfig(users=users, seed=seed, scenario=scenario, **settings))
    return market, *simulate_history(market)


def spec_of(market, post="1d"):
    return RewardSpec(goals=market.config.goals, pre="2d", post=post, overlap="exclude")


def opened_of(history):
    """Whether each decision's message has an open event within the day after its slot (n,)."""
    events, slots = history.events, history.decisions
    rows = (events.event >= OPENED) & (events.event < CLICKED)
    found = set(zip(events.user[rows].tolist(), ((events.time[rows] - START) // DAY).tolist(), strict=True))
    day = (slots.time - START) // DAY
    return np.array([key in found for key in zip(slots.user.tolist(), day.tolist(), strict=True)])


def effects_by_opening(scenario, users, channels, seed=0):
    """DiD and true effects of the messages on some channels that were not opened, and that were."""
    market, history, truth = log_of(scenario, users, seed)
    spec = spec_of(market)
    outcomes, opened = measure(history, spec), opened_of(history)
    sent = np.isin(truth.actions[:, 0], channels)
    return [average_effect(outcomes, spec, outcomes.treated & sent & (opened == seen), "x") for seen in (False, True)]


class TestDirect:
    def test_unopened_pushes_and_sms_act_and_unopened_emails_do_not(self):
        unseen, _ = effects_by_opening("direct", 12_000, [PUSH, SMS])
        email, _ = effects_by_opening("direct", 12_000, [EMAIL])
        assert unseen.value > 3 * unseen.se
        assert abs(email.value - self.cost("direct", EMAIL)) < 3 * email.se

    def cost(self, scenario, channel):
        """Mean goal value of the unsubscribes that messages on a channel cause: what an unseen e-mail does."""
        goals = (Goal("unsubscribed", -3.0),)
        _, _, truth = log_of(scenario, 3000, goals=goals)
        return truth.logged[truth.actions[:, 0] == channel].mean()

    def test_opening_makes_no_difference_there_and_all_of_it_elsewhere(self):
        """The effect on visits of the same push in all blocks, in which it is opened by more or by fewer."""
        market = Market(MarketConfig(scenario="direct", goals=(Goal("visit:*"),)))
        slots = market.reset(market.keys(300)).slots()
        blocks = np.arange(5)
        for channel in (EMAIL, PUSH, SMS, IN_APP):
            actions = np.stack([np.array([channel, b, 1, 1, 1, 1]) for b in blocks])[None]
            effect = market.true_effect(slots, actions)[slots.users.reachable[:, channel]]
            assert (np.ptp(effect, axis=1) == 0).all() == (channel in (PUSH, SMS))

    def test_nobody_clicks_on_them(self):
        _, history, truth = log_of("direct", 4000, days=10)
        clicked = history.events.event == CLICKED
        day = (history.events.time[clicked] - START) // DAY
        row = {key: i for i, key in enumerate(zip(truth.user.tolist(), truth.day.tolist(), strict=True))}
        at = [row[key] for key in zip(history.events.user[clicked].tolist(), day.tolist(), strict=True)]
        assert set(truth.actions[at, 0].tolist()) == {EMAIL, IN_APP}


class TestNoOpens:
    def test_the_log_is_that_of_the_default_scenario_without_open_events(self):
        """The same users, messages, visits, orders and clicks, as all random numbers are shared."""
        _, history, truth = log_of("no_opens", 1000)
        _, default, default_truth = log_of("default", 1000)
        opening = (default.events.event >= OPENED) & (default.events.event < CLICKED)
        assert opening.sum() > 500
        assert np.array_equal(history.decisions.actions, default.decisions.actions)
        assert np.array_equal(truth.logged, default_truth.logged)
        for name in ("user", "time", "event", "value"):
            assert np.array_equal(getattr(history.events, name), getattr(default.events, name)[~opening])
        assert (history.events.event == CLICKED).any()

    def test_openings_are_worth_nothing_as_no_goal_can_count_them(self):
        market = Market(MarketConfig(scenario="no_opens", goals=(Goal("opened:*", 1.0),), days=6))
        value = evaluate_policy(market, "uniform", 200)
        assert (value.effect == 0).all()
        assert (value.realised == 0).all()
        assert (evaluate_policy(market, "oracle", 200).sends == 0).all()


class TestConfoundedOpens:
    def test_those_who_open_visit_more_anyway(self):
        """A push that nobody can respond to: users who open it visit more that day than those who do not."""
        dynamics = SCENARIOS["confounded_opens"]().dynamics
        key = np.arange(20_000, dtype=np.uint64)
        kind = draw_day_kinds(key, np.array(3), dynamics)
        assert abs(kind.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(key))
        assert abs(np.corrcoef(kind, draw_day_kinds(key, np.array(4), dynamics))[0, 1]) < 4 / np.sqrt(len(key))

    def test_the_unopened_seem_to_lose_and_the_opened_gain_too_much(self):
        """By DiD of opened and unopened messages; the unopened do nothing but make a few unsubscribe."""
        unopened, opened = effects_by_opening("confounded_opens", 6000, [EMAIL, PUSH, SMS])
        plain_unopened, plain_opened = effects_by_opening("default", 6000, [EMAIL, PUSH, SMS])
        assert unopened.value < plain_unopened.value - 3 * unopened.se
        assert unopened.high < -0.02
        assert opened.value > 2 * plain_opened.value
        assert opened.value - plain_opened.value > 5 * opened.se

    def test_did_of_all_sends_is_right(self):
        z = []
        for seed in range(4):
            market, history, truth = log_of("confounded_opens", 2000, seed)
            fitted = TreatmentEffects.fit(make_reward("did", spec_of(market)), history)
            effect = fitted.effect()
            z.append((effect.value - truth.logged[fitted.outcomes.treated].mean()) / effect.se)
        assert abs(np.mean(z)) < 3 / np.sqrt(4)

    def test_the_effects_are_about_those_of_the_default_scenario(self):
        _, _, truth = log_of("confounded_opens", 2000)
        _, _, default = log_of("default", 2000)
        sent = MODULES.sends(truth.actions)
        plain = default.logged[MODULES.sends(default.actions)].mean()
        assert truth.logged[sent].mean() == pytest.approx(plain, rel=0.2)


class TestHeavyTails:
    def test_a_few_days_carry_most_of_the_variance(self):
        """Of goal values without messages, one day in 200 has about half of it; in the default scenario a sixth."""
        values = {}
        for name in ("default", "heavy_tails"):
            market = Market(MarketConfig(scenario=name))
            state = market.reset(market.keys(3000, seed=1))
            values[name] = np.stack([market.goal_value(state.organic[:, day]) for day in range(42)])
        plain, heavy = values["default"], values["heavy_tails"]
        assert abs(heavy.mean() - plain.mean()) < 4 * heavy.std() / np.sqrt(heavy.size)
        squares = {name: np.sort(((v - v.mean()) ** 2).ravel())[::-1] for name, v in values.items()}
        top = {name: s[: len(s) // 200].sum() / s.sum() for name, s in squares.items()}
        assert top["heavy_tails"] > 2 * top["default"]
        assert top["heavy_tails"] > 0.4
        assert heavy.max() > 3 * plain.max()
        assert heavy.var() > 2 * plain.var()

    def test_shares_are_those_of_a_power_law(self):
        kinds = SCENARIOS["heavy_tails"]().dynamics.day_kinds
        for j, kind in enumerate(kinds):
            assert sum(each.share for each in kinds[j:]) == pytest.approx(2.0 ** (-1.5 * j))
            assert kind.activity == pytest.approx(kinds[0].activity * 2**j)

    def test_effects_on_other_channels_than_in_app_are_those_of_the_default_scenario(self):
        market, default = Market(MarketConfig(scenario="heavy_tails")), Market(MarketConfig())
        slots = market.reset(market.keys(200)).slots()
        for channel in (EMAIL, PUSH, SMS, IN_APP):
            action = np.tile([channel, 3, 1, 1, 1, 1], (200, 1))
            same = market.true_effect(slots, action) == pytest.approx(default.true_effect(slots, action), rel=1e-9)
            assert same == (channel != IN_APP)


class TestSubjectLines:
    market = Market(MarketConfig(scenario="subject_lines"))

    def spread(self, market, events, module, channel=PUSH):
        """How much the true effect on some events differs between the actions of a module, by user."""
        one = Market(replace(market.config, goals=tuple(Goal(event) for event in events)))
        slots = one.reset(one.keys(300, seed=3)).slots()
        actions = np.tile([channel, 3, 1, 1, 1, 1], (len(MODULES[module].actions), 1))
        actions[:, MODULES.names.index(module)] = np.arange(len(actions))
        effect = one.true_effect(slots, actions[None])[slots.users.reachable[:, channel]]
        return effect, np.ptp(effect, axis=1).max()

    def test_tone_and_greeting_move_opening_and_visits_alike_and_nothing_once_opened(self):
        for module in ("tone", "greeting"):
            opened, most = self.spread(self.market, ["opened:*"], module)
            visits, _ = self.spread(self.market, ["visit:*"], module)
            orders, _ = self.spread(self.market, ["order:*"], module)
            assert most > 0.2
            for later in (visits, orders):
                once_opened = later / opened
                assert once_opened == pytest.approx(np.broadcast_to(once_opened[:, :1], once_opened.shape))

    def test_offers_move_orders_alone(self):
        for event, moved in (("opened:*", False), ("visit:*", False), ("order:*", True)):
            assert (self.spread(self.market, [event], "offer")[1] > 1e-12) == moved
        orders, visits = (
            self.spread(self.market, ["order:*"], "offer")[0],
            self.spread(self.market, ["visit:*"], "offer")[0],
        )
        assert (orders <= visits).all(), "no more orders than visits"

    def test_channels_move_opening_and_gain_in_different_orders(self):
        opening, gain = [], []
        for channel in (EMAIL, PUSH, SMS, IN_APP):
            opened = self.spread(self.market, ["opened:*"], "offer", channel)[0][:, 0]
            visits = self.spread(self.market, ["visit:*"], "offer", channel)[0][:, 0]
            opening.append(opened.mean())
            gain.append(visits.sum() / opened.sum())
        assert np.argmax(opening) != np.argmax(gain)
        assert max(gain) > 2 * min(gain)

    def test_in_the_default_scenario_the_three_act_on_visits(self):
        market = Market(MarketConfig())
        for module in ("offer", "tone", "greeting"):
            assert self.spread(market, ["opened:*"], module)[1] == 0
            assert self.spread(market, ["visit:*"], module)[1] > 0


@pytest.fixture(scope="module")
def machine_log():
    return log_of("machine_opens", 3000, days=14)


class TestMachineOpens:
    def test_programs_open_each_email_of_half_of_the_users_within_seconds(self, machine_log):
        _, history, truth = machine_log
        programs = truth.users.mail_program
        assert abs(programs.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(programs))
        events = history.events
        delivered = {(u, (t - START) // DAY): t for u, t in self.rows(events, DELIVERED)}
        opened = dict.fromkeys(delivered, None)
        for user, time in self.rows(events, OPENED + EMAIL - 1):
            assert opened[user, (time - START) // DAY] is None, "one opening a message"
            opened[user, (time - START) // DAY] = time - delivered[user, (time - START) // DAY]
        rows = np.flatnonzero(truth.actions[:, 0] == EMAIL)
        delays = [opened[key] for key in zip(truth.user[rows].tolist(), truth.day[rows].tolist(), strict=True)]
        by_program = [d for d, user in zip(delays, truth.user[rows], strict=True) if programs[user]]
        by_people = [d for d, user in zip(delays, truth.user[rows], strict=True) if not programs[user]]
        assert all(0 <= delay < 10 * SECOND for delay in by_program)
        assert 0.05 < np.mean([d is not None for d in by_people]) < 0.6
        assert np.median([d for d in by_people if d is not None]) > 600 * SECOND

    def rows(self, events, code):
        chosen = events.event == code
        return list(zip(events.user[chosen].tolist(), events.time[chosen].tolist(), strict=True))

    def test_all_but_the_open_events_of_emails_is_as_in_the_default_scenario(self, machine_log):
        _, history, truth = machine_log
        _, default, default_truth = log_of("default", 3000, days=14)
        assert np.array_equal(truth.logged, default_truth.logged)
        left, right = (h.events.event != OPENED + EMAIL - 1 for h in (history, default))
        for name in ("user", "time", "event", "value"):
            assert np.array_equal(getattr(history.events, name)[left], getattr(default.events, name)[right])


class TestSlow:
    def shares(self, dynamics):
        """Shares of the extra visits and of the extra orders within 1, 2, ... days after the slot."""
        visits = np.zeros(dynamics.last_day + 1)
        visits[: len(dynamics.visit_delay)] = dynamics.visit_delay
        later = np.convolve(dynamics.visit_delay, dynamics.order_delay)
        return np.cumsum(visits), np.cumsum(dynamics.offline * visits + (1 - dynamics.offline) * later)

    def within(self, truth, days):
        """True effects (n,) of the logged messages on the goals, within some days after the slot."""
        visits, orders = self.shares(truth.market.dynamics)
        total = 0.0
        for event, weight, share in (
            ("order:*", 1.0, orders[days - 1]),
            ("visit:*", 0.1, visits[days - 1]),
            ("unsubscribed", -3.0, 1.0),
        ):
            one = Market(replace(truth.market.config, goals=(Goal(event, weight),)))
            total = total + share * one.true_effect(truth.slots(), truth.actions)
        return total

    def test_the_documented_shares_lie_within_the_windows(self):
        visits, orders = self.shares(SCENARIOS["slow"]().dynamics)
        assert (visits[[0, 2]].round(2).tolist(), orders[[0, 2]].round(2).tolist()) == ([0.35, 0.8], [0.21, 0.68])
        assert len(orders) == 7
        _, _, truth = log_of("slow", 200, days=6)
        assert self.within(truth, 7) == pytest.approx(truth.logged)

    @pytest.mark.parametrize(("post", "days"), [("1d", 1), ("3d", 3)])
    def test_did_finds_the_part_that_lies_within_its_window(self, post, days):
        """Six markets: the mean of z is within 3 / sqrt(6) of 0, and the whole effect is beyond that within a day."""
        z = []
        for seed in range(6):
            market, history, truth = log_of("slow", 2000, seed)
            fitted = TreatmentEffects.fit(make_reward("did", spec_of(market, post)), history)
            effect, treated = fitted.effect(), fitted.outcomes.treated
            z.append([(effect.value - t[treated].mean()) / effect.se for t in (self.within(truth, days), truth.logged)])
        part, whole = np.mean(z, axis=0)
        assert abs(part) < 3 / np.sqrt(6)
        assert (whole < -3 / np.sqrt(6)) == (days == 1)

    def test_later_events_reach_the_log_and_the_context_on_their_own_day(self):
        """Without any organic behaviour all visits and orders are those that messages caused, up to six days later."""
        quiet = replace(Market(MarketConfig(scenario="slow")).dynamics, popularity=(0.0,) * 4, common=(0.0,) * 4)
        market = market_of(quiet, users=3000, days=12)
        state = market.reset(market.keys(3000), record=True)
        message = np.tile([EMAIL, 2, 1, 4, 1, 1], (3000, 1))
        nothing = np.zeros_like(message)
        results = [market.step(state, message if day == 0 else nothing) for day in range(12)]
        by_day = np.array([result.counts[:, VISIT : VISIT + 4].sum() for result in results])
        orders = np.array([result.counts[:, ORDER : ORDER + 4].sum() for result in results])
        assert (by_day[:5] > 0).all()
        assert (by_day[5:] == 0).all()
        assert (orders[:7] > 0).all()
        assert (orders[7:] == 0).all()
        share = by_day / by_day.sum()
        assert share[:5] == pytest.approx(quiet.visit_delay, abs=4 * 0.5 / np.sqrt(by_day.sum()))
        seen = sum(result.value for result in results)
        assert seen == pytest.approx(results[0].incremental), "a message's value comes in parts"
        assert sum(result.incremental for result in results[1:]).sum() == 0
        assert len(state.pending) == 0
        assert state.total[:, -1, VISIT : VISIT + 4].sum() == by_day.sum()

    def test_a_third_of_the_effect_on_orders_comes_without_a_visit(self):
        """Of the extra orders: those that the conversion of organic visits does not predict from the extra visits."""
        market = Market(MarketConfig(scenario="slow"))
        slots = market.reset(market.keys(400)).slots()
        action = np.tile([EMAIL, 2, 1, 0, 0, 0], (400, 1))
        visits, orders = (
            Market(replace(market.config, goals=(Goal(f"{kind}:groceries"),))).true_effect(slots, action)
            for kind in ("visit", "order")
        )
        reached = orders > 0
        predicted = visits * market.dynamics.conversion[1]
        assert predicted[reached] == pytest.approx(2 / 3 * orders[reached])

    def test_opened_messages_bring_orders_that_visits_do_not_foretell(self):
        """Orders within a day minus those that organic visits of the day would bring: none but for messages.

        In the default scenario the same difference is 0. The effect is about 5 standard errors with 8,000 users.
        """
        z = {}
        for scenario in ("slow", "default"):
            market, history, _ = log_of(scenario, 8000)
            dynamics = market.dynamics
            foretold = tuple(
                Goal(f"visit:{service}", -conversion * dynamics.order_delay[0])
                for service, conversion in zip(SERVICES, dynamics.conversion, strict=True)
            )
            spec = RewardSpec(goals=(Goal("order:*"), *foretold), pre="2d", post="1d", overlap="exclude")
            outcomes = measure(history, spec)
            opened = outcomes.treated & opened_of(history)
            effect = average_effect(outcomes, spec, opened, "opened")
            z[scenario] = effect.value / effect.se
        assert z["slow"] > 3
        assert abs(z["default"]) < 3

    def test_what_comes_after_the_last_day_counts_but_is_not_logged(self):
        market, history, _ = log_of("slow", 1500, days=4)
        assert history.events.time.max() < START + market.config.horizon * DAY
        value = evaluate_policy(market, "uniform", 3000)
        gap = value.realised - value.effect
        assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(gap))

    def test_replaced_users_leave_no_events_behind(self):
        market = Market(MarketConfig(scenario="slow", days=6))
        state = market.reset(market.keys(500))
        market.step(state, np.tile([EMAIL, 2, 1, 4, 1, 1], (500, 1)))
        rows = np.arange(0, 500, 2)
        assert np.isin(state.pending.row, rows).any()
        kept = (~np.isin(state.pending.row, rows)).sum()
        state.put(rows, market.reset(market.keys(len(rows), seed=9)))
        assert len(state.pending) == kept > 0
        assert not np.isin(state.pending.row, rows).any()

    def test_a_copied_state_is_advanced_separately(self):
        market = Market(MarketConfig(scenario="slow", days=8))
        state = market.reset(market.keys(300))
        market.step(state, np.tile([EMAIL, 2, 1, 4, 1, 1], (300, 1)))
        twin, nothing = state.copy(), np.zeros((300, 6), dtype=np.int64)
        first = [market.step(state, nothing).value for _ in range(5)]
        second = [market.step(twin, nothing).value for _ in range(5)]
        assert np.array_equal(first, second)
        assert np.sum(first) > 0


def market_of(dynamics, **settings):
    """A market with other dynamics than any named scenario."""
    market = Market(MarketConfig(scenario="slow", **settings))
    market.dynamics = dynamics
    market.calendar = type(market.calendar).build(dynamics, market.config.seed, market.config.horizon)
    return market


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"day_kinds": (DayKind(0.5, 1.0), DayKind(0.4, 1.0))}, "shares of day_kinds"),
        ({"day_kinds": (DayKind(0.5, 0.5), DayKind(0.5, 1.6))}, "mean activity of day_kinds"),
        ({"visit_delay": (0.5, 0.4)}, "visit_delay"),
        ({"order_delay": (0.5, 0.6)}, "order_delay"),
    ],
)
def test_dynamics_whose_closed_forms_would_be_wrong_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Dynamics(**settings)
