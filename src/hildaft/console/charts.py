"""The run's curves as the console draws them, and the view that feeds them."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, final

from hildaft.runtime.metrics import read_metrics
from hildaft.runtime.progress import ProgressView
from hildaft.types import Episode

POINTS: Final = 240
"""Points kept per curve; a longer one is thinned to half of them."""
WINDOW: Final = 20
"""Rollouts that the success and intervention rates look back on."""

_LOSSES: Final = {
    "critic": "bellman_loss",
    "cloning": "actor/bc_loss",
    "refinement": "refinement/bc_loss",
}
"""Curve to the end of the metrics' names that it averages."""


@final
class Curve:
    """A curve of bounded length: thinned by dropping every other point when full."""

    def __init__(self) -> None:
        self._points: list[tuple[float, float]] = []
        self._stride, self._seen = 1, 0

    def add(self, x: float, y: float) -> None:
        """Adds a point; one that is not finite is left out."""
        if not (math.isfinite(x) and math.isfinite(y)):
            return
        if self._seen % self._stride == 0:
            self._points.append((x, y))
        self._seen += 1
        if len(self._points) > POINTS:
            self._points, self._stride = self._points[::2], 2 * self._stride

    def to_json(self) -> list[list[float]]:
        """Points, oldest first."""
        return [[round(x, 2), float(f"{y:.4g}")] for x, y in self._points]


@final
class Charts:
    """Everything the console draws as curves and counts; safe to feed from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._began = clock()
        self._curves: dict[str, Curve] = {}
        self._rollouts: deque[tuple[bool, int, int]] = deque(maxlen=WINDOW)
        self._episodes = 0
        self._successes = 0
        self._stage, self._completed, self._total = "", 0, 0
        self.version = 0
        """Grows with every change."""

    def stage(self, name: str, total: int) -> None:
        """A stage begins."""
        with self._lock:
            self._stage, self._completed, self._total = name, 0, total
            self.version += 1

    def advance(self, completed: int, metrics: Mapping[str, float]) -> None:
        """So much of the stage is finished; the newest metrics, by name."""
        with self._lock:
            self._completed = completed
            self._take((self._clock() - self._began) / 60, metrics)
            self.version += 1

    def episode(self, *, success: bool, helped: int, steps: int) -> None:
        """An episode ended; `helped` of its steps were the person's."""
        with self._lock:
            self._rollouts.append((success, helped, steps))
            self._episodes += 1
            self._successes += success
            at = float(self._episodes)
            rate = sum(s for s, _, _ in self._rollouts) / len(self._rollouts)
            share = sum(h for _, h, _ in self._rollouts) / max(
                1, sum(n for *_, n in self._rollouts)
            )
            self._curve("success").add(at, rate)
            self._curve("intervention").add(at, share)
            self.version += 1

    def take_episode(self, episode: Episode) -> None:
        """A rollout ended; a demonstration is none."""
        if episode.source != "demo":
            helped = int(episode.is_intervention.sum())
            self.episode(success=episode.success, helped=helped, steps=len(episode))

    def load(self, folder: Path) -> None:
        """Takes over what an earlier session of the run has measured; its minutes count backwards from now."""
        rows = read_metrics(folder)
        with self._lock:
            for row in rows:
                self._take((row["time"] - rows[-1]["time"]) / 60, row)
            self.version += 1

    def _take(self, at: float, metrics: Mapping[str, float]) -> None:
        obedience = [v for name, v in metrics.items() if name.endswith("obedience")]
        if obedience:
            self._curve("obedience").add(at, obedience[-1])
        for label, ending in _LOSSES.items():
            values = [v for name, v in metrics.items() if name.endswith(ending)]
            if values:
                self._curve(f"loss/{label}").add(at, sum(values) / len(values))

    def _curve(self, name: str) -> Curve:
        return self._curves.setdefault(name, Curve())

    def to_json(self) -> dict[str, Any]:
        """The message body the page draws."""
        with self._lock:
            return {
                "curves": {name: curve.to_json() for name, curve in self._curves.items()},
                "episodes": self._episodes,
                "successes": self._successes,
                "seconds": round(self._clock() - self._began, 1),
                "stage": self._stage,
                "completed": self._completed,
                "total": self._total,
            }


@final
class ConsoleView:
    """Shows a run in the terminal and in the console alike (implements the session's `View`)."""

    def __init__(self, terminal: ProgressView, charts: Charts) -> None:
        self._terminal, self._charts = terminal, charts

    def stage(self, name: str, total: int) -> None:
        """A stage begins: `total` units of work."""
        self._terminal.stage(name, total)
        self._charts.stage(name, total)

    def advance(self, completed: int, metrics: Mapping[str, float]) -> None:
        """So many units are finished; the newest metrics."""
        self._terminal.advance(completed, metrics)
        self._charts.advance(completed, metrics)

    def episode(self, episode: Episode, transitions: int) -> None:
        """A rollout ended."""
        self._terminal.episode(episode, transitions)
        self._charts.take_episode(episode)

    def evaluated(self, name: str, task: str, successes: int, episodes: int) -> None:
        """An evaluation of one task ended."""
        self._terminal.evaluated(name, task, successes, episodes)

    def note(self, text: str) -> None:
        """A line to be read."""
        self._terminal.note(text)
