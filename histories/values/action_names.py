"""Check the names of modules and actions: their characters, and which action evidently sends nothing.

The first action of the first module sends nothing. If the names show that it is another one, every effect would have
the opposite sign, so such modules are refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError

#: Actions with a digit and at least this length may be ids, which may differ in case alone.
MIN_ID_LENGTH = 15


def _words_of(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_NEGATIONS = _words_of(
    "no not non none nothing zero without never dont ohne kein keine keinen sans aucun sin sem sense nessun"
)
_SENDING = _words_of(
    "send sends sent sending message messages msg msgs contact contacted communication communications outreach touch",
    "touched treat treated treatment intervention delivery delivered targeted exposed exposure",
    "nachricht versand kontakt envoi correo mensaje",
)
_CHANNELS = _words_of(
    "mail mails email emails push pushes sms mms rcs notification notifications newsletter whatsapp telegram viber",
    "messenger inapp webpush call calls letter postcard",
)
_OFFERS = _words_of(
    "offer offers coupon coupons voucher discount promo promotion campaign campaigns ad ads banner popup reminder",
)
#: Names that mean nothing was sent, in whichever module they stand.
_UNSENT = _words_of(
    "holdout holdouts heldout holdback unsent untreated unexposed uncontacted untargeted suppressed donothing nosend",
)
_NOTHING = _words_of(
    "none nothing null nil na nan noaction noop nochannel",
    "control controls controle controlo controllo kontrolle kontrollgruppe temoin",
    "keine keiner nichts aucun aucune rien ninguno ninguna nada nessuno niente nenhum nenhuma geen niets ingen brak",
    "なし 无 無 对照组 对照 対照",
)
#: Names that may also be those of a message, such as that of the usual one.
_PERHAPS = _words_of("no off false n zero baseline skip skipped hold wait pass idle silent silence bau") | {""}
_MESSAGE = _words_of("true yes y on treatment treated treat send sent contacted targeted exposed")
_FILLERS = _words_of(
    "group groups arm arms cell cells user users global universal random the a an any at all percent pct gruppe",
)
_JOINED = {
    *(("e", "mail"), ("in", "app"), ("web", "push"), ("pop", "up")),
    *(("hold", "out"), ("held", "out"), ("hold", "back"), ("whats", "app")),
}


def check_action_names(modules: ActionSpace) -> None:
    """Refuse names of modules and actions that cannot be read unambiguously, or whose first action is a message.

    Raises:
        ConfigError: With the names, and what to do.
    """
    # `--staggered` separates a module and its action by =, and TensorBoard's tags by /.
    _check_characters("module", modules.names, "|=,/`")
    for module in modules:
        _check_characters(f"module {module.name!r}, action", module.actions, "|")
        _check_spelling(module.name, module.actions)
    _check_nothing(modules)


def _check_characters(what: str, names: Sequence[str], separators: str) -> None:
    for name in names:
        if not name or name != name.strip() or not name.isprintable():
            raise ConfigError(
                f"{what} {name!r}: a name must not be empty, begin or end with a space, or have a line break or a "
                "control character: rename it, in the log as well"
            )
        if found := sorted(set(name) & set(separators)):
            raise ConfigError(f"{what} {name!r}: {found[0]!r} separates names in lists: rename it, in the log as well")


def _check_spelling(module: str, names: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for name in names:
        if len(name) >= MIN_ID_LENGTH and any(char.isdigit() for char in name):
            continue  # ids may differ in case
        folded = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if folded in first:
            raise ConfigError(
                f"module {module!r}: the actions {first[folded]!r} and {name!r} differ only in case or spaces: write "
                "them in one way, in the log as well"
            )
        first[folded] = name


def _check_nothing(modules: ActionSpace) -> None:
    """Refuse modules whose names show that the first action of the first module is not to send nothing.

    Refused are a first action that is evidently a message (`email`, `treatment`, `1`), another action of the first
    module that means nothing (`control`, `no_send`), an action of a later module that means that nothing was sent
    (`holdout`, `no message`), and channels of a later module beside an action that means nothing (`none, email`). What
    a later module calls `none` is otherwise a message without that part. A declaration (`Module.nothing`) overrules
    names.
    """
    module, first = modules[0].name, modules[0].actions[0]
    later = [(owner.name, owner.actions) for owner in modules[1:]]
    if wrong := [owner.name for owner in modules[1:] if owner.nothing is not None]:
        raise ConfigError(
            f"module {wrong[0]!r} has the key `nothing`, but only an action of the first module, {module!r}, sends "
            "nothing: move the key there"
        )
    if (declared := modules[0].nothing) is not None:
        if declared != first:
            raise ConfigError(
                f"module {module!r} declares that {declared!r} sends nothing, but its first action is {first!r}: list "
                "the action that sends nothing first"
            )
        return
    means = f"the first action of the first module sends nothing, and in {module!r} this is {first!r}"
    unless = f"If {first!r} does send nothing, declare `nothing: {first}` in module {module!r}"
    other = [(module, name) for name in modules[0].actions[1:] if means_nothing(name)]
    perhaps = [(module, name) for name in modules[0].actions[1:] if means_nothing(name, perhaps=True)]
    hints = other or perhaps or [(owner, name) for owner, names in later for name in names if means_nothing(name)]
    if is_message(first):
        beside = f", while {hints[0][1]!r} in {hints[0][0]!r} means nothing" if hints else ""
        nothing = repr(hints[0][1]) if hints and hints[0][0] == module else "the action that sends nothing, as 'none',"
        remedy = f"List {nothing} first"
        raise ConfigError(f"{means}, which is evidently a message{beside}. {remedy}. {unless}")
    known = means_nothing(first, perhaps=True)
    if found := other or ([] if known else perhaps):
        remedy = f"Write {first!r} in its place in the log and in `actions`" if known else f"List {found[0][1]!r} first"
        raise ConfigError(f"{means}, while {found[0][1]!r} means nothing as well. {remedy}. {unless}")
    for owner, names in later:
        unsent = [name for name in names if says_unsent(name) or (not known and _is_control(name))]
        if not unsent and any(is_channel(name) for name in names):
            unsent = [name for name in names if means_nothing(name)]
        if unsent:
            raise ConfigError(
                f"{means}, while {unsent[0]!r} in the later module {owner!r} means that nothing was sent. Remove it "
                f"from {owner!r} and write {first!r} in {module!r} for such rows, or list {owner!r} as the first "
                f"module. {unless}"
            )


@lru_cache(maxsize=65536)
def means_nothing(name: str, *, perhaps: bool = False) -> bool:
    """Return whether a name means that nothing is sent; with `perhaps`, also those that may mean a message as well."""
    words, plain = _words(name), _plain(name)
    if plain in _NOTHING or says_unsent(name) or (perhaps and (plain in _PERHAPS or _zero(name))):
        return True
    rest = [word for word in words if word not in _FILLERS and not word.isdigit()]
    if rest and all(word in _NOTHING or word in _UNSENT for word in rest):
        return True
    return _negated(words, _SENDING | _CHANNELS | (_OFFERS if perhaps else frozenset()))


@lru_cache(maxsize=65536)
def says_unsent(name: str) -> bool:
    """Return whether a name means that nothing was sent, in whichever module it stands."""
    words = _words(name)
    rest = [word for word in words if word not in _FILLERS and not word.isdigit()]
    return (
        _plain(name) in _UNSENT or (bool(rest) and all(word in _UNSENT for word in rest)) or _negated(words, _SENDING)
    )


@lru_cache(maxsize=65536)
def is_message(name: str) -> bool:
    """Return whether a name is evidently that of a message."""
    words = _words(name)
    if _one(name):
        return True
    if (
        not words
        or words[-1].strip("0") == ""
        or means_nothing(name)
        or _NEGATIONS & set(words)
        or any(word in _NOTHING | _UNSENT for word in words)
    ):
        return False
    return _plain(name) in _MESSAGE or bool(set(words) & (_SENDING | _CHANNELS | _OFFERS))


@lru_cache(maxsize=65536)
def is_channel(name: str) -> bool:
    """Return whether a name is evidently that of a channel."""
    return is_message(name) and bool(set(_words(name)) & _CHANNELS)


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case: those of `noEmail`, `no_e-mail` and `No e-mail` are `no`, `email`."""
    text = unicodedata.normalize("NFKD", name)
    text = "".join(char for char in text if not unicodedata.combining(char))
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).casefold().replace("don't", "dont").replace("w/o", "without")
    words = re.findall(r"[a-z]+|\d+|[^\W\d_a-z]+", text)
    joined: list[str] = []
    for word in words:
        if joined and (joined[-1], word) in _JOINED:
            joined[-1] += word
        else:
            joined.append(word)
    if joined[:2] == ["do", "not"]:
        joined[:2] = ["dont"]
    # `noemail` is `no email`.
    if (
        joined
        and (match := re.fullmatch(r"(no|not)([a-z]+)", joined[0]))
        and match[2] in _SENDING | _CHANNELS | _OFFERS
    ):
        joined[:1] = [match[1], match[2]]
    return joined


def _is_control(name: str) -> bool:
    return means_nothing(name) and "control" in _words(name)


def _plain(name: str) -> str:
    return "".join(_words(name))


def _negated(words: Sequence[str], what: Iterable[str]) -> bool:
    rest = [word for word in words[1:] if word not in _FILLERS]
    return bool(rest) and words[0] in _NEGATIONS and all(word in set(what) for word in rest)


def _zero(name: str) -> bool:
    return re.fullmatch(r"[-+]?0+(\.0*)?", name.strip()) is not None


def _one(name: str) -> bool:
    return re.fullmatch(r"\+?0*1(\.0*)?", name.strip()) is not None
