"""Modules whose names show that the first action is not to send nothing are refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError
from crosschannel.histories.history import History
from crosschannel.histories.readers.sources import TableSource
from crosschannel.histories.readers.stream.mapping import StreamMapping
from crosschannel.histories.readers.tables import TableMapping
from crosschannel.histories.values.action_names import check_action_names, is_message, means_nothing

NOTHING = [
    *("none", "None", "NONE", "nothing", "Control", "control_group", "Control Group", "control 10%", "global control"),
    *("holdout", "hold-out", "Hold Out", "held_out", "global_holdout", "holdout_5pct", "no_send", "NoSend", "no-send"),
    *("nosend", "not sent", "notSent", "do not send", "don't send", "no e-mail", "No E-Mail", "noEmail", "NO_EMAIL"),
    *("no_push", "no message", "no messages", "without message", "no contact", "not contacted", "untreated", "unsent"),
    *(
        "no treatment",
        "not_treated",
        "no push notification",
        "no in-app",
        "no_sms",
        "nothing sent",
        "null",
        "nil",
        "N/A",
    ),
    *("kein Versand", "keine E-Mail", "Kontrollgruppe", "témoin", "ninguno", "no action", "noop", "not targeted"),
]
PERHAPS = ["0", "0.0", "00", "off", "no", "false", "baseline", "skip", "-", "no_offer", "no discount"]
MESSAGES = [
    *(
        "email",
        "E-Mail",
        "Mens E-Mail",
        "push",
        "Push Notification",
        "PushNotification",
        "sms",
        "send",
        "sent",
        "in-app",
    ),
    *(
        "treatment",
        "treated",
        "Treatment Group",
        "1",
        "1.0",
        "true",
        "yes",
        "on",
        "WhatsApp",
        "offer_10",
        "email_promo",
    ),
    *("webPush", "newsletter", "campaign 3", "direct mail", "coupon"),
]
UNCLEAR = [
    *("a", "quiet", "a0", "summer", "treatment_0", "offer_0", "control_email", "no_show_reminder", "email_none"),
    *("non_member_offer", "standard", "A", "winback"),
]


def space(*modules: tuple[str, ...], nothing: str | None = None) -> ActionSpace:
    names = ("first", "second", "third")
    return ActionSpace(
        [Module(names[m], actions, nothing=nothing if m == 0 else None) for m, actions in enumerate(modules)]
    )


@pytest.mark.parametrize("name", NOTHING)
def test_it_means_nothing(name: str) -> None:
    assert means_nothing(name)
    assert not is_message(name)
    check_action_names(space((name, "email", "x")))
    for first in ("email", "x"):
        with pytest.raises(ConfigError) as caught:
            check_action_names(space((first, name)))
        assert repr(first) in str(caught.value)
        assert repr(name) in str(caught.value)
        check_action_names(space((first, name), nothing=first))


@pytest.mark.parametrize("name", PERHAPS)
def test_it_may_mean_nothing(name: str) -> None:
    assert not means_nothing(name)
    assert means_nothing(name, perhaps=True)
    check_action_names(space((name, "email")))
    check_action_names(space(("none", name)))
    for first in ("email", "x"):
        with pytest.raises(ConfigError, match="means nothing"):
            check_action_names(space((first, name)))


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_not_nothing(name: str) -> None:
    assert is_message(name)
    assert not means_nothing(name, perhaps=True)
    check_action_names(space(("none", name)))
    with pytest.raises(ConfigError, match=r"evidently a message.*declare `nothing: "):
        check_action_names(space((name, "x")))
    check_action_names(space((name, "x"), nothing=name))


@pytest.mark.parametrize("name", UNCLEAR)
def test_an_unusual_name_may_be_first(name: str) -> None:
    assert not is_message(name)
    assert not means_nothing(name, perhaps=True)
    check_action_names(space((name, "email"), ("none", "small")))


def test_two_actions_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="'none', while 'control' means nothing as well"):
        check_action_names(space(("none", "control", "email")))
    check_action_names(space(("none", "control", "variant"), nothing="none"))
    check_action_names(space(("none", "no_offer", "points")))


def test_a_later_module_may_have_a_part_that_is_none() -> None:
    check_action_names(space(("none", "email"), ("none", "10 % off"), ("no_greeting", "by_name")))
    check_action_names(space(("none", "email"), ("control", "variant")))
    check_action_names(space(("a", "b"), ("none", "small")))


@pytest.mark.parametrize("name", ["holdout", "no_send", "not sent", "untreated", "no message"])
def test_a_later_module_says_that_nothing_was_sent(name: str) -> None:
    with pytest.raises(ConfigError, match="later module 'second'"):
        check_action_names(space(("none", "email"), ("large", name)))
    check_action_names(space(("none", "email"), ("large", name), nothing="none"))


def test_the_channel_is_a_later_module() -> None:
    for first in (("none", "10 % off"), ("no_offer", "points"), ("summer", "winter")):
        with pytest.raises(
            ConfigError, match=r"'none' in the later module 'second'.*list 'second' as the first module"
        ):
            check_action_names(space(first, ("none", "email", "push")))
    with pytest.raises(ConfigError, match="'control' in the later module"):
        check_action_names(space(("summer", "winter"), ("control", "x")))
    with pytest.raises(ConfigError, match=r"evidently a message, while 'no_send' in 'third' means nothing"):
        check_action_names(space(("email", "push"), ("a", "b"), ("no_send", "c")))


def test_a_declaration_must_name_the_first_action() -> None:
    with pytest.raises(ConfigError, match="declares that 'control' sends nothing, but its first action is 'email'"):
        check_action_names(space(("email", "control"), nothing="control"))
    wrong = ActionSpace([Module("channel", ("none", "email")), Module("offer", ("a", "b"), nothing="a")])
    with pytest.raises(ConfigError, match="only an action of the first module, 'channel'"):
        check_action_names(wrong)


def test_a_declaration_is_kept_and_changes_nothing_else() -> None:
    declared, plain = space(("send", "x"), nothing="send"), space(("send", "x"))
    assert declared == plain
    assert ActionSpace.from_dict(declared.to_dict())[0].nothing == "send"
    assert "nothing" not in plain.to_dict()[0]


MODULES = ({"name": "channel", "actions": ["email", "control"]},)


def test_every_way_into_a_history_refuses() -> None:
    source = TableSource(Path("a.csv"))
    with pytest.raises(ConfigError, match="'control'"):
        TableMapping(decisions=source, events=(source,), modules=MODULES)
    with pytest.raises(ConfigError, match="'control'"):
        StreamMapping(rows=source, modules=MODULES, sends=(), slots="sends_only")
    with pytest.raises(ConfigError, match="'control'"):
        History.from_tables(pd.DataFrame(), pd.DataFrame(), ActionSpace.from_dict(MODULES))


@pytest.mark.parametrize("name", ["", " ", "email ", " email", "a|b", "a\nb", "a\tb", "\u200b", "a\u2028b"])
def test_an_action_cannot_have_this_name(name: str) -> None:
    with pytest.raises(ConfigError, match="action " + repr(name).replace("\\", r"\\").replace("|", r"\|")):
        check_action_names(space(("none", name)))


@pytest.mark.parametrize("name", ["a=b", "a,b", "a/b", "a: b", "10 %", "push&mail", "é", "a`b"])
def test_other_separators_in_an_action_have_no_effect(name: str) -> None:
    check_action_names(space(("none", name), ("a", "b")))


@pytest.mark.parametrize("name", ["", "channel ", "a|b", "a=b", "a,b", "a/b", "a`b", "a\nb"])
def test_a_module_cannot_have_this_name(name: str) -> None:
    with pytest.raises(ConfigError, match="module"):
        check_action_names(ActionSpace([Module(name, ("none", "x"))]))


def test_actions_that_differ_only_in_case_are_refused() -> None:
    with pytest.raises(ConfigError, match="'Email' and 'email' differ only in case"):
        check_action_names(space(("none", "Email", "email")))
    with pytest.raises(ConfigError, match="differ only in case or spaces"):
        check_action_names(space(("none", "big  sale", "big sale")))
    check_action_names(space(("none", "001D000000IRFma", "001D000000IRFmA")))
