"""Text to refinement command: what the operator typed or said, or None where the parser has to ask.

A wrong direction is worse than a question, so the grammar is closed: every word must play a known part
(`phrase_lexicon`), every direction must be asked for, and words that take it back ("not so far left", "too
high", "less right") are resolved in their clause. Signs are (forward, left, up) as the operator sees the robot.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from hildaft.teleop.phrase_grammar import UNITLESS, AskError, Clause, Event, Word
from hildaft.teleop.phrase_lexicon import IDIOMS, ROLES, SIGNS, Role, Signs, word_set
from hildaft.teleop.spelling import mend
from hildaft.types import NULL_COMMAND, RefinementCommand

MAX_WORDS: Final = 30
"""Longer speech is a story, not a command."""

_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)?")
_CONTRACTIONS: Final = (
    (r"\bcan'?t\b|\bcannot\b", "can not"),
    (r"\bwon'?t\b", "will not"),
    (r"\b(do|does|did|is|are|was|should|could|would|need)n'?t\b", r"\1 not"),
    (r"\blet'?s\b", "let us"),
    (r"'re\b|(?<=\byou)re\b", " are"),
    (
        r"\b(it|that|this|there|here|what|where|how|who|arm|gripper|hand|tool|tip|bolt|thing)'s\b",
        r"\1 is",
    ),
    (r"\bthats\b", "that is"),
    (r"\bhair'?s[ -]breadth\b", "hair"),
    # "The robot's left" is not the operator's.
    (r"'s\b", " _ask"),
    (r"\s*[+&]\s*(?=[a-z])", " and "),
    (r"/", " or "),
    (r"\b(i|you|we|they)'(?:d|ll|ve)\b", r"\1 would"),
    (r"\bi'm\b", "i am"),
    (r"\bgonna\b", "going to"),
    (r"\bgimme\b", "give me"),
    (r"\bur\b", "you are"),
    (r"\b(?:u|ya|yer)\b", "you"),
    (r"\bthx\b", "thanks"),
)
_SPEECH_PATTERNS: Final = tuple(
    (re.compile(rf"(?<!\S)(?:{pattern})(?!\S)"), stands_for) for pattern, stands_for in IDIOMS
)


def parse_phrase(text: str) -> RefinementCommand | None:
    """What a phrase asks for; signs are (forward, left, up) as the operator sees the robot.

    Returns:
        The command; `NULL_COMMAND` where the operator wants no change or a stop; None where nothing certain
        was understood and the operator has to be asked.
    """
    words = _read(text)
    if not words or len(words) > MAX_WORDS:
        return None
    if _stops(words):
        return NULL_COMMAND
    try:
        _refuse_questions(words)
        return _Meaning().of(_clauses(words))
    except AskError:
        return None


def _stops(words: Sequence[Word]) -> bool:
    """Whether a clause opens with a stop word and nothing said names a direction or takes it back."""
    held = (Role.DIRECTION, Role.RAISING, Role.LEVEL, Role.HEIGHT, Role.NOT, Role.UNDECIDED)
    if any(word.role in held or word.role is Role.MOTION for word in words):
        return False
    return any(clause[0].role is Role.STOP for clause in _clauses(words))


def suggest_commands(text: str) -> tuple[RefinementCommand, ...]:
    """Up to three commands to offer (never to execute) where `parse_phrase` asks: the directions the text names."""
    named = [
        RefinementCommand(SIGNS[word.text])
        for word in _read(text)
        if word.role in (Role.DIRECTION, Role.RAISING, Role.LEVEL)
    ]
    both = [command for first in named for command in (first, first.opposite)]
    return tuple(dict.fromkeys(both))[:3]


def _read(text: str) -> list[Word]:
    """Words, mended and with idioms replaced; "," stands for every pause, "?" for the question mark."""
    plain = text.lower().replace("\u2019", "'").replace("`", "'")
    for pattern, expansion in _CONTRACTIONS:
        plain = re.sub(pattern, expansion, plain)
    plain = re.sub(r"(?<=\d)(?=[a-z])", " ", plain)
    # A sign makes an amount ambiguous ("up -5 mm"); a hyphen between words does not.
    plain = re.sub(r"(?<![\w])-(?=\d)", " _ask ", plain)
    pieces = re.findall(r"[a-z_']+|\d+(?:[.,]\d+)?|\?|[.,;:!\u2014\u2013]+|[^\s\w\-/()\"']", plain)
    words = [
        "," if re.fullmatch(r"[.,;:!\u2014\u2013]+", piece) else mend(piece.strip("'"))
        for piece in pieces
    ]
    sentence = " ".join(word for word in words if word)
    for pattern, stands_for in _SPEECH_PATTERNS:
        sentence = pattern.sub(stands_for, sentence)
    return [Word(word, _role(word)) for word in sentence.split()]


def _role(word: str) -> Role:
    if _NUMBER.fullmatch(word):
        return Role.AMOUNT if float(word.replace(",", ".")) > 0 else Role.UNKNOWN
    if word in UNITLESS:
        return Role.AMOUNT
    if word in (",", "?"):
        return Role.FILLER
    if word in ROLES:
        return ROLES[word]
    # Manner, whatever it is: "gingerly left". A few of them take the sense away.
    manner = len(word) > 4 and word.endswith("ly")
    return Role.AMOUNT if manner and word not in _NEARLY else Role.UNKNOWN


_NEARLY: Final = word_set("hardly barely nearly scarcely supply apply reply family only early")


_IS: Final = word_set("is are am was were")
_AGREEING: Final = word_set(
    "ok okay okey yes yeah yep yup so well ah oh hmm um uh er hey hi mate man dude buddy pal sir guys"
    " folks please"
)


def _refuse_questions(words: Sequence[Word]) -> None:
    """Polite requests end in a question mark too, and real questions often do not."""
    asks = any(word.text == "?" for word in words)
    polite = any(word.role is Role.POLITE for word in words)
    first = next(
        word
        for word in [*words, Word("", Role.UNKNOWN)]
        if word.text not in (",", "ok", "and", "so")
    )
    said = {word.text for word in words if word.text not in (",", "?")}
    if "right" in said and said - {"right"} and said - {"right"} <= _AGREEING:
        # "Okay, right": agreement or a direction.
        raise AskError
    if first.role is Role.ASKING or first.text in _IS or (asks and not polite):
        raise AskError


def _clauses(words: Iterable[Word]) -> list[list[Word]]:
    """Splits at pauses, at "but", "because", and at "so" where it means "therefore"."""
    clauses: list[list[Word]] = [[]]
    for word in words:
        if word.role is Role.UNTIL and any(clauses):
            break
        if word.text in (",", "?", "but", "because", "since", "cause", "cos"):
            clauses.append([])
        else:
            clauses[-1].append(word)
    return [clause for clause in clauses if clause]


@final
@dataclass
class _Meaning:
    """What the clauses so far have asked for, forbidden and stopped."""

    asked: dict[int, int] = field(default_factory=dict)
    banned: list[Signs] = field(default_factory=list)
    stopped: bool = False
    explained: bool = False
    bare: bool = False

    def of(self, clauses: list[list[Word]]) -> RefinementCommand | None:
        """The command the clauses add up to; None, or `AskError`, where they do not."""
        clauses = _without_opening_right(clauses)
        for clause in clauses:
            read = Clause(clause)
            for event in read.read():
                self._take(event)
            self.bare = self.bare or read.is_bare
        asked = self.asked
        if self.explained and self.bare:
            # "Too far, left": too far left, or left because it is too far?
            raise AskError
        if any(asked.get(_axis(ban)) == ban[_axis(ban)] for ban in self.banned):
            raise AskError
        if asked:
            return RefinementCommand((asked.get(0, 0), asked.get(1, 0), asked.get(2, 0)))
        return NULL_COMMAND if self.stopped else None

    def _take(self, event: Event) -> None:
        match event.kind:
            case "ask for":
                axis = _axis(event.signs)
                if self.asked.setdefault(axis, event.signs[axis]) != event.signs[axis]:
                    raise AskError
            case "ban":
                self.banned.append(event.signs)
            case "stop":
                self.stopped = True
            case "explain":
                self.explained = True
            case "forget":
                self.asked, self.banned, self.stopped = {}, [], False


def _axis(signs: Signs) -> int:
    return next(axis for axis, sign in enumerate(signs) if sign)


def _without_opening_right(clauses: list[list[Word]]) -> list[list[Word]]:
    """Reads "right, now go left": an opening "right" that agrees, and asks where it might be a direction."""
    if len(clauses) < 2 or [word.text for word in clauses[0]] != ["right"]:
        return clauses
    rest = [word for clause in clauses[1:] for word in clause]
    opens = rest[0].text in ("now", "then", "so", "let", "ok", "please")
    if opens or any(word.role is Role.DIRECTION and word.text.startswith("left") for word in rest):
        return clauses[1:]
    # "Right, down a bit" may agree or combine; "right, back and down" is a list.
    named = [word.role for word in rest if word.role in (Role.DIRECTION, Role.RAISING)]
    if len(named) == 1:
        raise AskError
    return clauses
