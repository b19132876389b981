"""What a study consists of: runs, each a command line, and the evaluations that follow each of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hildaft.types import HilDaftError

MEASURED: Final = "measured"
"""Folder within a run where a study keeps the evaluations it makes beside the run's own."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One evaluation of a finished run by a command that prints JSON."""

    name: str
    """Of its file, `RUN/measured/NAME.json`."""
    words: Callable[[Path], tuple[str, ...]]
    """From the run folder to the command's words."""

    def file(self, run: Path) -> Path:
        """Where its result is, once it has been made."""
        return run / MEASURED / f"{self.name}.json"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run of a study."""

    method: str
    """Row of the tables: a preset's name, or what was changed."""
    seed: int
    words: tuple[str, ...]
    """Preset and overrides of `hildaft train`, seed and folder left out."""
    robots: tuple[str, ...] = ()
    """Robots that deliver to a learner process; none: the run has its own robot, as `train` does."""
    measurements: tuple[Measurement, ...] = ()
    """Made in this order once the run is finished."""
    group: str = ""
    """Folder below the study's root that the run lies in, where several studies share it; the study's name if empty."""
    given: Path | None = None
    """A run that was made elsewhere and is only measured here."""

    @property
    def key(self) -> str:
        """Name of the run's folder."""
        return f"{self.method}-s{self.seed}" if self.given is None else self.given.name


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How much of everything a study's runs take."""

    transitions: int = 15_000
    warmup_updates: int = 2_000
    episodes: int = 100
    """Per task, at the end."""
    episodes_before: int = 25
    episodes_during: int = 25
    every: int = 3_000
    """Transitions between evaluations."""
    demonstrations: int = 20

    @property
    def words(self) -> tuple[str, ...]:
        """As overrides of `hildaft train`."""
        return (
            f"--training.demonstrations={self.demonstrations}",
            f"--training.warmup-updates={self.warmup_updates}",
            f"--training.online-transitions={self.transitions}",
            f"--evaluation.episodes={self.episodes}",
            f"--evaluation.episodes-before={self.episodes_before}",
            f"--evaluation.episodes-during={self.episodes_during}",
            f"--evaluation.every={self.every}",
        )


FULL: Final = Amounts()
QUICK: Final = Amounts(
    transitions=1_500,
    warmup_updates=1_200,
    episodes=25,
    episodes_before=5,
    episodes_during=5,
    every=750,
)
"""For two cores and twenty minutes; the curves are shorter, the intervals wider."""


def train_words(preset: str, amounts: Amounts, *changes: str) -> tuple[str, ...]:
    """A run of a preset with a study's amounts and what this member changes.

    Plain cloning makes its updates offline, as many as the others make in both stages.
    """
    words = amounts.words
    if preset == "bc":
        total = amounts.warmup_updates + amounts.transitions
        words = (
            *(w for w in words if "warmup-updates" not in w and "online-transitions" not in w),
            f"--training.warmup-updates={total}",
            "--training.online-transitions=0",
        )
    return (preset, *words, *changes)


def require_keys(members: list[Member]) -> list[Member]:
    """The members, whose folders must differ."""
    seen: set[tuple[str, str]] = set()
    for member in members:
        place = (member.group, member.key)
        if place in seen:
            msg = f"study: two runs are called {member.key}; give each seed once"
            raise HilDaftError(msg)
        seen.add(place)
    return members
