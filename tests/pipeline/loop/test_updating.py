"""What a policy has learned is a function of the log, whatever the order of updates, crashes and corrections."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.times import DAY, HOUR, timestamps
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.histories.observation.slicing import until
from crosschannel.pipeline.building import compute_rewards
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.loop import states
from crosschannel.pipeline.loop.parts.rows import closed
from crosschannel.pipeline.loop.policies import Policies
from crosschannel.pipeline.loop.states import States
from crosschannel.pipeline.loop.updating import Updated, update
from crosschannel.pipeline.reading import build_history
from crosschannel.pipeline.report.model_card import MODEL_CARD
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs import update as update_program
from crosschannel.programs.evaluate import evaluate
from crosschannel.programs.update import roll_back
from tests.pipeline.loop.updates import config, days, log, started

#: All is fitted again after days 1 to 3, 4, 6 and 9; in between days are added.
GROWTH = {"update.growth": 0.5}


def day_by_day(settings: Config, path: Path, history: History) -> list[Updated]:
    run = started(settings, path, history)
    return [update(run, until(history, time)) for time in days(history)[1:]]


def with_late_event(history: History, day: int) -> History:
    """The log with another order of its first user in the middle of a day."""
    e = history.events
    first = int(history.decisions.time.min())
    row = int(np.flatnonzero(e.event == history.event_names.index("order:food"))[0])
    rows = np.sort(np.append(np.arange(len(e)), row))
    time = e.time[rows].copy()
    place = int(np.flatnonzero(rows == row)[-1])
    time[place] = first + day * DAY + DAY // 2
    events = replace(take_rows(e, rows), time=time)
    return History.from_arrays(
        history.decisions,
        events,
        modules=history.modules,
        user_ids=history.user_ids,
        event_names=history.event_names,
        span=history.span,
        users=history.users,
    )


@pytest.mark.parametrize("agent", ["ensemble_thompson", "linear_thompson"])
def test_day_by_day_and_at_once_are_equal_to_the_bit(tmp_path: Path, agent: str) -> None:
    other = {} if agent == "ensemble_thompson" else {"agent.name": agent, "agent.settings": {}}
    settings = config(**GROWTH, **other)
    daily = day_by_day(settings, tmp_path / "daily", log())
    once = update(started(settings, tmp_path / "once", log()), log())
    assert daily[-1].version == once.version
    assert daily[-1].rows == once.rows > 0
    files = [Policies(tmp_path / name).path(once.version).read_bytes() for name in ("daily", "once")]
    assert files[0] == files[1]
    added = sum(len(each.added) for each in daily)
    assert (added > 0) == (agent == "ensemble_thompson")


def test_an_update_without_news_changes_nothing(tmp_path: Path) -> None:
    run = started(config(**GROWTH), tmp_path / "run", log())
    first = update(run, log())
    again = update(run, log())
    assert again.version == first.version
    assert (again.fitted, again.added) == ((), ())


def test_where_the_log_stands_does_not_make_another_version(tmp_path: Path) -> None:
    versions = set()
    for name in ("2026-11-29", "2026-11-30"):
        settings = config(**GROWTH)
        moved = replace(settings, history=settings.history.with_path(tmp_path / name))
        run = started(moved, tmp_path / f"run-{name}", log())
        versions |= {run.policy_version, update(run, log()).version}
    assert len(versions) == 2  # that of the start and that of the update


def test_days_that_were_missed_are_made_up_for(tmp_path: Path) -> None:
    settings, history = config(**GROWTH), log()
    run = started(settings, tmp_path / "run", history)
    update(run, until(history, days(history)[3]))
    late = update(run, history)
    assert late.version == update(started(settings, tmp_path / "other", history), history).version


def test_the_first_decisions_with_a_policy_and_an_arm_change_no_day_before(tmp_path: Path) -> None:
    """The first decided day brings columns that no earlier row has, and is no correction of these rows."""
    settings, whole = config(**GROWTH), log()
    before = replace(whole, decisions=replace(whole.decisions, policy=None, arm=None, eligible=None))
    decided = before.decisions.time >= days(before)[-2]
    eligible = np.ones((len(decided), before.modules.total), dtype=bool)
    eligible[decided] = whole.eligible[decided]
    columns = {
        "policy": np.where(decided, "51e6c03ec831", None),
        "arm": np.where(decided, "agent", None),
        "eligible": eligible,
    }
    after = replace(before, decisions=replace(before.decisions, **columns))
    run = started(settings, tmp_path / "run", before)
    update(run, until(before, days(before)[-2]))
    found = update(run, after)
    assert (found.revised, found.late) == (0, 0)
    assert found.version == update(started(settings, tmp_path / "fresh", after), after).version


@pytest.mark.parametrize("day", [5, *(pytest.param(day, marks=pytest.mark.slow) for day in (1, 7))])
def test_a_corrected_day_is_learned_again(tmp_path: Path, day: int) -> None:
    settings, history = config(**GROWTH), log()
    run = started(settings, tmp_path / "run", history)
    before = [update(run, until(history, time)) for time in days(history)[1:-1]][-1]
    corrected = with_late_event(history, day)
    found = update(run, corrected)
    assert found.revised == 1
    fresh = update(started(settings, tmp_path / "fresh", corrected), corrected)
    assert found.version == fresh.version != before.version


def test_a_change_before_the_days_that_are_revised_is_counted_and_left(tmp_path: Path) -> None:
    settings, history = config(**{"update.revise": "2d", "update.growth": 10.0}), log()
    run = started(settings, tmp_path / "run", history)
    for time in days(history)[1:-1]:
        update(run, until(history, time))
    found = update(run, with_late_event(history, 1))
    assert (found.revised, found.late) == (0, 1)
    assert (found.fitted, found.added) == ((), (9,))


@pytest.mark.parametrize("where", ["state", pytest.param("policy", marks=pytest.mark.slow)])
def test_an_update_that_is_cut_off_is_made_again(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, history = config(**GROWTH), log()
    run = started(settings, tmp_path / "run", history)
    update(run, until(history, days(history)[-2]))
    name, owner = {"policy": ("use", Policies), "state": ("write", States)}[where]

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, cut)
        with pytest.raises(KeyboardInterrupt):
            update(run, history)
    found = update(run, history)
    assert found.version == update(started(settings, tmp_path / "fresh", history), history).version


def test_without_the_files_of_learning_all_is_computed_again(tmp_path: Path) -> None:
    settings, history = config(**GROWTH), log()
    run = started(settings, tmp_path / "run", history)
    version = update(run, history).version
    shutil.rmtree(tmp_path / "run" / "learning")
    assert update(run, history).version == version


def test_a_policy_decides_until_a_better_one_has_learned(tmp_path: Path) -> None:
    history = log()
    run = started(config(), tmp_path / "run", history)
    first = Policies(run.path).current
    with pytest.raises(NotIdentified):
        update(run, until(history, int(history.decisions.time.min())))
    assert Policies(run.path).current == first
    found = update(run, history)
    assert Run.open_in_use(run.path).version == found.version != first


def test_rewards_that_wait_for_the_next_day_of_learning_are_not_said_to_be_missing(tmp_path: Path) -> None:
    """Two days less an hour after the first decision its window has ended, but the second day of learning has not."""
    history = replace(log(), ties=None)
    first = int(history.decisions.time.min())
    settings = config(**{"reward.funnel.surrogates": {}})
    run = started(settings, tmp_path / "run", history)
    following = f"{timestamps(np.array([first + 2 * DAY]))[0]:%Y-%m-%d %H:%M} UTC"
    with pytest.raises(NotIdentified, match=r"\d of [\d,]+ decisions have a reward, and are learned from") as error:
        update(run, until(history, first + 2 * DAY - HOUR))
    assert f"when the log reaches {following}" in str(error.value)
    with pytest.raises(NotIdentified, match=r"none of [\d,]+ decisions has a reward yet; [\d,]+ have none: window ext"):
        update(run, until(history, first + HOUR))


def test_a_slot_without_decisions_is_named(tmp_path: Path) -> None:
    history = log()
    absent = int(history.decisions.time.min()) + 3 * DAY
    d = history.decisions
    history = replace(history, decisions=take_rows(d, d.time != absent))
    assert update(started(config(), tmp_path / "run", history), history).missing == (absent,)


def test_earlier_policies_are_kept_and_can_decide_again(tmp_path: Path) -> None:
    settings = config(**GROWTH, **{"update.keep": 3})
    daily = day_by_day(settings, tmp_path / "run", log())
    policies = Policies(tmp_path / "run")
    assert policies.versions == [each.version for each in daily[-3:]]
    policies.use(daily[-2].version)
    assert Run.open_in_use(tmp_path / "run").version == daily[-2].version
    with pytest.raises(ConfigError, match="there is no policy"):
        policies.use(daily[0].version)


def test_memory_is_bounded(tmp_path: Path) -> None:
    whole = update(started(config(), tmp_path / "whole", log()), log())
    short = update(started(config(**{"update.memory": "3d"}), tmp_path / "short", log()), log())
    assert short.rows < whole.rows


def test_changed_attributes_are_learned_again(tmp_path: Path) -> None:
    """Users' attributes are no part of any day, but of every context."""
    settings, history = config(**GROWTH), log()
    run = started(settings, tmp_path / "run", history)
    before = update(run, history).version
    assert history.users is not None
    turned = history.users.assign(platform=history.users["platform"].to_numpy()[::-1])
    other = replace(history, users=turned)
    found = update(run, other).version
    assert found == update(started(settings, tmp_path / "fresh", other), other).version != before


def test_a_damaged_state_is_computed_again(tmp_path: Path) -> None:
    run = started(config(**GROWTH), tmp_path / "run", log())
    version = update(run, log()).version
    for file in (tmp_path / "run" / "learning").iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    (tmp_path / "run" / "policies" / "order.json").write_text("{")
    assert update(run, log()).version == version


def test_a_state_of_another_log_is_not_taken_for_this_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, history = config(**GROWTH), log()
    run = started(settings, tmp_path / "run", history)

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Policies, "write", cut)
        with pytest.raises(KeyboardInterrupt):
            update(run, with_late_event(history, 5))
    assert update(run, history).version == update(started(settings, tmp_path / "fresh", history), history).version


def test_an_action_that_is_added_in_the_middle_is_fitted_again(tmp_path: Path) -> None:
    settings, history = config(**GROWTH), log()
    run = started(settings, tmp_path / "run", history)
    update(run, until(history, days(history)[-2]))
    place = history.modules.names.index("offer")
    offer = history.modules[place]
    more = replace(offer, actions=(offer.actions[0], "percent_30", *offer.actions[1:]), labels={})
    modules = ActionSpace([more if m == place else module for m, module in enumerate(history.modules)])
    d = history.decisions
    actions = d.actions.copy()
    actions[:, place] += actions[:, place] > 0
    wider = replace(history, modules=modules, decisions=replace(d, actions=actions, eligible=None))
    found = update(run, wider)
    assert found.fitted
    assert (found.revised, found.late) == (0, 0)
    assert found.version == update(started(settings, tmp_path / "fresh", wider), wider).version


def test_rewards_that_become_known_later_are_added_once(tmp_path: Path) -> None:
    """Pooled cells have enough controls only when more days of their block have closed."""
    settings = config(**{"update.growth": 10.0, "reward.min_controls": 380, "reward.matching.fallback": ("time",)})
    run = started(settings, tmp_path / "run", log())
    daily = [update(run, until(log(), time)) for time in days(log())[2:]]
    assert daily[-1].rows > daily[0].rows
    frame = compute_rewards(log(), settings)
    assert daily[-1].rows <= frame.identified.sum()


def test_what_happens_at_the_very_end_of_a_window_belongs_to_it(tmp_path: Path) -> None:
    """A log of dates: an order of the day after has the time at which the window ends, and the slot as well."""
    history, settings = log(), config()
    first = int(history.decisions.time.min())
    assert not closed(settings, history, first + DAY)[history.decisions.time == first].any()
    assert closed(settings, history, first + DAY + 1)[history.decisions.time == first].all()
    after = replace(history, ties="after")
    assert closed(settings, after, first + DAY)[history.decisions.time == first].all()


def test_an_evaluation_leaves_the_card_to_the_policy_in_use(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After updates and after a roll-back, `evaluate` judges what training wrote and names the policy that decides."""
    path = Path(shutil.copytree(trained, tmp_path / "run"))
    run = Run.open_in_use(path)
    history = build_history(run.config)[0]
    first = update(run, until(history, days(history)[-2])).version
    # Flags of the daily job name where the newest log is: what was judged before stays.
    run = Run.open_in_use(path)
    where = replace(run.config.history, path=tmp_path / "log", decided=tmp_path / "decisions")
    second = update(replace(run, config=replace(run.config, history=where)), history).version
    assert first != second
    caplog.set_level("INFO", logger="crosschannel")
    card, of_training = path / MODEL_CARD, replace(run, version=None).policy_version
    assert "those of the policy that training wrote" in card.read_text(encoding="utf-8")
    for version in (second, first):
        roll_back(Run.open_in_use(path), version)
        before = card.read_text(encoding="utf-8")
        assert f"Version in use: `{version}` (from an update)" in before
        assert f"policy {version}: learned from" in before
        assert "those of the policy that training wrote" in before
        evaluate(path)
        assert f"decides with policy {version}, but policy {of_training} of its training is judged" in caplog.text
        assert card.read_text(encoding="utf-8") == before
    evaluate(path, out=tmp_path / "elsewhere")
    elsewhere = (tmp_path / "elsewhere" / MODEL_CARD).read_text(encoding="utf-8")
    assert f"Version in use: `{of_training}` (from training)" in elsewhere
    assert f"policy {first}: learned from" not in elsewhere


def test_a_roll_back_repairs_the_note_of_the_policy_in_use(tmp_path: Path) -> None:
    """As the error on the damaged note says; what is not a version, or is damaged, is not put to use."""
    history, run = log(), started(config(), tmp_path / "run", log())
    first = update(run, until(history, days(history)[-2])).version
    second = update(run, history).version
    policies, path = Policies(run.path), str(run.path)
    (policies.folder / "current.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is damaged.*update RUN --use VERSION"):
        update_program.main([path])
    assert update_program.main([path, "--use", first]) == 0
    assert policies.current == first
    shutil.copy(policies.path(first), run.path / "elsewhere.pt")
    for wrong in ("../elsewhere", "elsewhere", ""):
        with pytest.raises(ConfigError, match="there is no policy"):
            update_program.main([path, "--use", wrong])
    policies.path(second).write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="is not a policy as it was written"):
        update_program.main([path, "--use", second])
    assert policies.current == first


def test_the_words_of_the_card_go_with_their_policy(tmp_path: Path) -> None:
    """Policies that are pruned leave no words behind; damaged words are named."""
    history, run = log(), started(config(**{"update.keep": 1}), tmp_path / "run", log())
    for time in days(history)[-3:]:
        last = update(run, until(history, time)).version
    words = run.path / "policies" / f"{last}.json"
    assert {path.name for path in words.parent.glob("*.json")} == {words.name, "current.json", "order.json"}
    words.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is damaged.*Delete it"):
        roll_back(run, last)


def test_days_before_anybody_was_held_out_teach_nothing_and_stop_nothing(tmp_path: Path) -> None:
    """With the holdout as controls: the log of the first days has no arm, and that of later ones has some."""
    holdout = {"reward.controls": "holdout", "reward.holdout_arms": ("holdout",), "reward.min_controls": 2}
    history = log()
    run = started(config(**holdout, **GROWTH), tmp_path / "run", history)
    first = Policies(run.path).current
    with pytest.raises(NotIdentified, match=r"no decision of .* has an arm"):
        update(run, until(history, days(history)[3]))
    assert Policies(run.path).current == first
    d = history.decisions
    arm = np.where(d.user % 3 == 0, "holdout", "agent").astype(object)
    arm[d.time < days(history)[4]] = None
    actions = np.where((arm == "holdout")[:, None], 0, d.actions)
    later = replace(history, decisions=replace(d, arm=arm, actions=actions))
    assert update(run, later).rows > 0


def test_an_update_and_a_roll_back_write_the_model_card(tmp_path: Path) -> None:
    history, run = log(), started(config(), tmp_path / "run", log())
    first = update(run, until(history, days(history)[-2])).version
    assert f"Version in use: `{first}` (from an update)" in (run.path / MODEL_CARD).read_text(encoding="utf-8")
    second = update(run, history)
    card = (run.path / MODEL_CARD).read_text(encoding="utf-8")
    assert second.version != first
    assert f"Version in use: `{second.version}` (from an update)" in card
    assert f"learned from {second.rows:,} decisions" in card
    assert history.summary().splitlines()[0] in card
    assert "No evaluation of this policy stands in the run" in card
    roll_back(run, first)
    assert f"Version in use: `{first}`" in (run.path / MODEL_CARD).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_state_of_an_earlier_version_is_computed_again_and_is_no_correction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digests are of another kind: days would all look as if they had changed."""
    run = started(config(**GROWTH), tmp_path / "run", log())
    with monkeypatch.context() as patched:
        patched.setattr(states, "VERSION", states.VERSION - 1)
        version = update(run, log()).version
    found = update(run, log())
    assert found.version == version
    assert found.fitted
    assert (found.revised, found.late) == (0, 0)
