"""One clause of an operator's phrase: which directions it asks for, forbids or takes back.

The rules are about scope: what a negation, "too", "less" or "enough" does to the direction it stands by. What they do
not settle raises `AskError`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

from hildaft.teleop.phrase_lexicon import DOWN, SIGNS, UP, Role, Signs, word_set

UNITLESS: Final = word_set(
    "one two three four five six seven eight nine ten twelve fifteen twenty thirty forty fifty"
    " few some couple several"
)
_COMPARATIVES: Final = word_set("higher lower lefter righter")
_SMALL: Final = word_set("bit little touch tad hair slightly slight smidge quite very fraction")
_DIRECTED: Final = (Role.DIRECTION, Role.RAISING, Role.LEVEL, Role.HEIGHT)


_SENSES: Final[dict[frozenset[Role], Literal["with", "against", "ban"]]] = {
    frozenset(): "with",
    frozenset((Role.NOT,)): "ban",
    frozenset((Role.NOT, Role.SO)): "against",
    frozenset((Role.TOO,)): "against",
    frozenset((Role.LESS,)): "against",
    frozenset((Role.OVERSHOT,)): "against",
    frozenset((Role.TOO, Role.OVERSHOT)): "against",
}
"""What the words before a direction make of it; every other mixture is a riddle."""


class AskError(Exception):
    """The phrase cannot be read without guessing."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word and the part it plays."""

    text: str
    role: Role

    @property
    def is_number(self) -> bool:
        """Whether it is an amount without a unit."""
        return self.text in UNITLESS or self.text[0].isdigit()


@dataclass(frozen=True, slots=True)
class Event:
    """What a clause does to the meaning so far."""

    kind: Literal["ask for", "ban", "stop", "forget", "explain"]
    signs: Signs = (0, 0, 0)


@final
class Clause:
    """The words of a clause, without the politeness."""

    def __init__(self, words: Sequence[Word]) -> None:
        self.words = [word for word in words if word.role is not Role.POLITE]
        self._pad = Word("", Role.FILLER)
        self.events: list[Event] = []
        self._modifiers: Counter[Role] = Counter()
        self._spent = False
        """Whether a modifier was used and nothing has been said since that ends its scope."""
        self._settled = False
        """Whether "so far", said after its direction, has been read with it."""

    # Looking around.

    def _at(self, index: int) -> Word:
        return self.words[index] if 0 <= index < len(self.words) else self._pad

    def _has(self, *roles: Role, before: int | None = None, after: int = 0) -> bool:
        return any(word.role in roles for word in self.words[after:before])

    def _after(self, index: int) -> Word:
        """The next word that is neither filler nor amount nor article."""
        skipped = (Role.FILLER, Role.AMOUNT, Role.DETERMINER)
        rest = (word for word in self.words[index + 1 :] if word.role not in skipped)
        return next(rest, self._pad)

    @property
    def is_bare(self) -> bool:
        """Whether a direction is named without a verb that asks to move."""
        return self._has(*_DIRECTED) and not self._has(Role.MOTION, Role.RAISING)

    # Reading.

    def read(self) -> list[Event]:
        """The clause's events in order."""
        if self._only_stops():
            return [Event("forget"), Event("stop")]
        self._admit_amounts()
        self._refuse_the_unsayable()
        if self._has(Role.ENOUGH) and not self._has(Role.NOT):
            return self._read_enough()
        for index, word in enumerate(self.words):
            self._read_word(index, word)
        self._close()
        return self.events

    def _only_stops(self) -> bool:
        """A stop word at the start with no direction after it counts, whatever else is said."""
        words = [word for word in self.words if word.role is not Role.FILLER]
        stops = bool(words) and words[0].role is Role.STOP
        return (
            stops and not self._has(*_DIRECTED, Role.NOT, Role.UNDECIDED) and not self._restarts()
        )

    def _restarts(self) -> bool:
        """Finds "stop and go": a verb that is no "-ing" after a stop."""
        stopped = False
        for word in self.words:
            stopped = stopped or word.role is Role.STOP
            if stopped and word.role is Role.MOTION and not word.text.endswith("ing"):
                return True
        return False

    def _admit_amounts(self) -> None:
        """Reads "a skosh higher", "move up a skosh": an unknown noun in the place of an amount is one."""
        moves = self._has(Role.MOTION, Role.RAISING) or any(
            word.text in _COMPARATIVES or word.text == "more" for word in self.words
        )
        for index, word in enumerate(self.words):
            follows = self._at(index + 1)
            in_place = follows is self._pad or follows.role in (*_DIRECTED, Role.FILLER)
            in_place = in_place or follows.text in ("more", "further")
            article = self._at(index - 1).text in ("a", "an")
            if word.role is Role.UNKNOWN and word.text != "_ask" and article and in_place and moves:
                self.words[index] = Word(word.text, Role.AMOUNT)

    def _refuse_the_unsayable(self) -> None:
        refused = (
            Role.UNKNOWN,
            Role.ACT,
            Role.UNDECIDED,
            Role.ASKING,
            Role.NEAR,
            Role.AWAY,
            Role.PLACE,
            Role.UNTIL,
        )
        if self._has(*refused):
            raise AskError
        for index, word in enumerate(self.words):
            if word.role in (Role.DIRECTION, Role.LEVEL):
                self._refuse_adjective(index, word)
            if word.role is Role.ME and self._at(index - 1).text not in ("give", "told", "tell"):
                raise AskError

    def _refuse_adjective(self, index: int, word: Word) -> None:
        """Refuses "the left bolt", "two left", "right up": words of direction that do not ask for it."""
        before, after = self._at(index - 1), self._at(index + 1)
        described = (after.role is Role.THING or after.text == "one") and not (
            after.text in ("motion", "movement")
            or (word.text == "lower" and after.text in ("it", "this", "tcp"))
        )
        phrasal = before.role is Role.MOTION or word.text == "lower"
        verb_of_leaving = (
            after.role is Role.DETERMINER and self._at(index + 2).role is Role.THING and not phrasal
        )
        article = before.role is Role.DETERMINER
        to = self._at(index - 2).text in ("to", "toward", "towards", "over")
        turns = before.text == "a" and self._at(index - 2).text in ("hang", "make", "take")
        counted = word.text == "left" and any(
            w.is_number
            and (
                self._at(i + 1).role is not Role.AMOUNT or self._at(i + 1).text in ("step", "steps")
            )
            for i, w in enumerate(self.words[:index])
        )
        emphasis = word.text == "right" and after.text in (
            "up",
            "down",
            "back",
            "over",
            "to",
            "there",
            "here",
        )
        affirmed = word.text == "right" and before.role is Role.BE
        article_misplaced = article and not to and not turns
        if described or verb_of_leaving or article_misplaced or counted or emphasis or affirmed:
            raise AskError

    def _read_enough(self) -> list[Event]:
        """Reads "that is far enough", "enough": content with where it is."""
        if self._has(
            Role.MOTION, Role.MODAL, Role.RAISING, Role.TOO, Role.LESS, Role.SHRINK, Role.GROW
        ):
            raise AskError
        return [Event("forget"), Event("stop")]

    def _read_word(self, index: int, word: Word) -> None:
        match word.role:
            case Role.NOT | Role.LESS | Role.OVERSHOT:
                self._modifiers[word.role] += 1
            case Role.TOO:
                self._read_too(index)
            case Role.SO if self._settled:
                pass
            case Role.SO:
                if self._after(index).role in (Role.FAR, Role.LEVEL, Role.DIRECTION):
                    moved = word.text == "that" and self._at(index - 1).role is Role.MOTION
                    self._modifiers[Role.SO] += 0 if moved else 1
                elif word.text == "as":
                    raise AskError
            case Role.FILLER:
                self._read_filler(index, word)
            case Role.FAR:
                if self._at(index - 1).text == "to" and not self._has(Role.MOTION, before=index):
                    raise AskError
            case Role.MOTION:
                self._spent = False
            case Role.STOP | Role.HOLD:
                self._read_stop(index, word)
            case Role.CONTENT:
                self.events += [Event("forget"), Event("stop")]
            case Role.CORRECTION:
                self._forget()
            case Role.SAYING:
                if word.text in ("mean", "meant"):
                    self._forget()
            case Role.NO:
                self._read_no(index)
            case Role.DIRECTION | Role.RAISING:
                self._direct(index, SIGNS[word.text])
            case Role.LEVEL:
                self._read_level(index, word)
            case Role.HEIGHT:
                self._read_height(index)
            case _:
                pass

    def _read_too(self, index: int) -> None:
        """Before a direction it complains; "left too much" complains after it; "up too" means also."""
        roles = (Role.FAR, *_DIRECTED)
        follows = self._after(index)
        if follows.role not in roles:
            return
        if self._has(*_DIRECTED, after=index):
            self._modifiers[Role.TOO] += 1
        elif self._modifiers[Role.NOT]:
            # "Left, but not too far": a limit.
            self._modifiers[Role.NOT] -= 1
        elif len(self.events) == 1 and self.events[0].kind == "ask for":
            forward, left, up = self.events[0].signs
            self.events = [Event("ask for", (-forward, -left, -up))]
        elif not self._has(*_DIRECTED, Role.NOT, Role.LESS, Role.SO):
            self.events.append(Event("explain"))
        else:
            raise AskError

    def _read_filler(self, index: int, word: Word) -> None:
        follows = self._at(index + 1)
        if word.text == "to" and follows.role is Role.LEVEL and not self._has(Role.MOTION):
            self._modifiers[Role.TOO] += 1
        if word.text == "then":
            self._spent = False

    def _forget(self) -> None:
        self.events.append(Event("forget"))
        self._modifiers.clear()
        self._spent = False

    def _read_stop(self, index: int, word: Word) -> None:
        if self._modifiers[Role.NOT]:
            raise AskError
        follows = self._after(index)
        going_on = follows.role in _DIRECTED or (
            follows.role is Role.MOTION and follows.text.endswith("ing")
        )
        joined = self._at(index + 1).text in ("and", "then")
        if word.role is Role.HOLD and not joined and self._has(*_DIRECTED, after=index):
            if word.text == "hang" and self._at(index + 1).text == "a":
                return
            if word.text != "wait":
                raise AskError
        self._forget()
        self.events.append(Event("stop"))
        if word.role is Role.STOP and going_on and not joined:
            # "Stop going left" forbids it; nothing is asked for.
            self._modifiers[Role.NOT] += 1

    def _read_no(self, index: int) -> None:
        follows = self._at(index + 1)
        barred = (Role.AMOUNT, Role.MODAL, Role.BE, Role.GROW, Role.SHRINK)
        if (
            follows.text in ("motion", "movement", "movements", "change", "changes")
            and not self.events
        ):
            self.events.append(Event("stop"))
        elif (
            follows.role in barred
            or (follows.role in _DIRECTED and not self.events)
            or (follows.role is Role.MOTION and follows.text.endswith("ing"))
        ):
            raise AskError
        else:
            self._forget()

    def _read_level(self, index: int, word: Word) -> None:
        signs = SIGNS[word.text]
        if self._settled or any(event.signs == signs for event in self.events):
            return
        if self._modifiers or self._has(Role.ENOUGH):
            self._direct(index, signs)
        elif self._has(Role.MOTION, before=index) and not self._has(Role.BE):
            if any(w.text in ("keep", "keeping") for w in self.words):
                raise AskError
            self._direct(index, signs)
        elif self._has(Role.BE, before=index) or self._at(index - 1).text in _SMALL:
            self._modifiers[Role.TOO] += 1
            self._direct(index, signs)
        else:
            raise AskError

    def _read_height(self, index: int) -> None:
        more = self._has(Role.GROW) or self._at(index - 1).text in ("more", "extra", "some", "bit")
        less = self._has(Role.SHRINK)
        if more == less and not self._modifiers:
            raise AskError
        self._direct(index, DOWN if less else UP)

    def _direct(self, index: int, signs: Signs) -> None:
        """Settles what is meant with the direction named at `index`."""
        before = self._at(index - 1)
        if before.role is Role.LEVEL and SIGNS[before.text] == signs:
            # "Too high up" says it twice.
            return
        if self._modifiers[Role.NOT] and self._complains_after(index, signs):
            self._modifiers[Role.SO] += 1
            self._settled = True
        modifiers = frozenset(role for role, count in self._modifiers.items() if count)
        crowded = any(count > 1 for count in self._modifiers.values())
        # "It is not that high" reports; "not that high" complains.
        reports = self._has(Role.BE) and not self._has(Role.MODAL)
        reports = reports and modifiers == frozenset((Role.NOT, Role.SO))
        unclear = (before.text == "much" and not modifiers) or (self._spent and not modifiers)
        shrinks = self._has(Role.SHRINK) and self._at(index).role is not Role.HEIGHT
        if crowded or reports or unclear or shrinks or modifiers not in _SENSES:
            raise AskError
        self._modifiers.clear()
        self._spent = bool(modifiers)
        sense = _SENSES[modifiers]
        if self._has(Role.WRONG):
            sense = "ban"
        elif sense == "ban" and self._has(Role.ENOUGH):
            sense = "with"
        elif not modifiers:
            self._refuse_report(index)
        forward, left, up = signs
        against: Signs = (-forward, -left, -up)
        kind = "ban" if sense == "ban" else "ask for"
        self.events.append(Event(kind, against if sense == "against" else signs))

    def _complains_after(self, index: int, signs: Signs) -> bool:
        """Finds "do not lift it so high", where the complaint stands behind its direction."""
        so = [i for i, w in enumerate(self.words) if i > index and w.role is Role.SO]
        if len(so) != 1 or self._has(Role.DIRECTION, Role.RAISING, Role.HEIGHT, after=index + 1):
            return False
        degree = self._at(so[0] + 1)
        return degree.role is Role.FAR or (
            degree.role is Role.LEVEL and SIGNS[degree.text] == signs
        )

    def _refuse_report(self, index: int) -> None:
        """Refuses "it is left", "you went up", "I left": reports, unless someone wishes or said it."""
        wished = self._has(Role.MODAL, Role.SAYING, before=index)
        complained_after = self._has(Role.TOO, after=index)
        reports = self._has(Role.BE, Role.REPORT) and not complained_after
        own = self._has(Role.I, before=index)
        if (reports or own) and not wished:
            raise AskError

    def _close(self) -> None:
        """What is left over when the words are: a modifier that found no direction is a riddle."""
        directed = self._has(*_DIRECTED)
        if self._has(Role.WRONG) and not directed:
            self.events = [Event("forget")]
        leftover = {role for role, count in self._modifiers.items() if count}
        stands = (
            leftover == {Role.NOT} and not directed and not self._has(Role.FAR, Role.BE, Role.MODAL)
        )
        if stands and self._has(Role.MOTION):
            # "Do not move".
            self.events.append(Event("stop"))
        stops = bool(self.events) and self.events[-1].kind == "stop"
        riddle = bool(leftover - {Role.SO}) and not stops
        if riddle or (self._restarts() and not directed):
            raise AskError
