"""The phrases of `phrases.txt`, their meanings and the half that was kept unread while the rules were written."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from hildaft.types import RefinementCommand

FILE = Path(__file__).parent / "phrases.txt"
LETTERS = {
    "F": (1, 0, 0),
    "B": (-1, 0, 0),
    "L": (0, 1, 0),
    "R": (0, -1, 0),
    "U": (0, 0, 1),
    "D": (0, 0, -1),
}


@dataclass(frozen=True)
class Phrase:
    text: str
    style: str
    meaning: RefinementCommand | None

    @property
    def is_held_out(self) -> bool:
        return hashlib.sha256(self.text.encode()).digest()[0] % 2 == 1


def read_phrases(file: Path = FILE) -> list[Phrase]:
    phrases, style = [], ""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            style = line.strip("[]")
        elif " |" in line and not line.startswith("#"):
            letters, text = line.split(" |", 1)
            phrases.append(Phrase(text.strip(), style, _meaning(letters)))
    return phrases


def _meaning(letters: str) -> RefinementCommand | None:
    if letters == "?":
        return None
    signs = [LETTERS[letter] for letter in letters if letter != "0"]
    forward, left, up = (sum(column) for column in zip((0, 0, 0), *signs, strict=True))
    return RefinementCommand((forward, left, up))


@dataclass(frozen=True)
class Score:
    """How a parser did: answers that were right, asked, wrong, and wrong with an opposite direction."""

    right: int
    asked: int
    wrong: tuple[str, ...]
    opposite: tuple[str, ...]


def score(phrases, parse) -> Score:
    """A question is right where nobody could know; else it is merely asked."""
    right, asked, wrong, opposite = 0, 0, [], []
    for phrase in phrases:
        got = parse(phrase.text)
        if got == phrase.meaning:
            right += 1
        elif got is None:
            asked += 1
        else:
            wrong.append(f"{phrase.text} -> {got.signs}")
            wanted = phrase.meaning.signs if phrase.meaning else (0, 0, 0)
            if any(g * w < 0 for g, w in zip(got.signs, wanted, strict=True)):
                opposite.append(phrase.text)
    return Score(right, asked, tuple(wrong), tuple(opposite))
