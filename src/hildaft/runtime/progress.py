"""The live terminal view of a run; one plain line now and then where there is no terminal."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hildaft.types import Episode

WINDOW: Final = 20
"""Rollouts per task that the success rate and the dots show."""
PLAIN_SECONDS: Final = 10.0
"""Time between two lines where the output is not a terminal."""

_RATE_SECONDS: Final = 30.0
_NOTES: Final = 3
_STAGES: Final = 3
_ACCENT, _GOOD, _HELPED, _BAD, _QUIET = "bold #2f9e8f", "#2f9e8f", "#e0a030", "#c05050", "dim"


@dataclass(slots=True)
class _Task:
    """What the view shows of one task."""

    rollouts: deque[tuple[bool, int, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """Success, intervention steps and steps of the newest rollouts."""
    before: float = math.nan
    after: float = math.nan

    @property
    def success(self) -> float:
        """Share of successful rollouts, NaN before the first."""
        return _ratio(sum(success for success, _, _ in self.rollouts), len(self.rollouts))


@final
class ProgressView:
    """Shows a run while it goes on; a context manager, safe to feed from several threads.

    Stages come one after the other; metrics are kept by name, the newest value is shown.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console()
        self._clock, self._lock = clock, threading.RLock()
        self._tasks = {task: _Task() for task in tasks}
        self._stages: list[str] = []
        self._completed, self._total = 0, 1
        self._history: deque[tuple[float, int]] = deque()
        self._metrics: dict[str, float] = {}
        self._notes: deque[str] = deque(maxlen=_NOTES)
        self._began = self._printed = clock()
        self._live: Live | None = None

    def __enter__(self) -> "ProgressView":
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self.render, refresh_per_second=4
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del kind, error, trace
        if self._live is not None:
            self._live.stop()
            self._live = None
        else:
            self._print(self.plain_line())

    def stage(self, name: str, total: int) -> None:
        """A stage begins: `total` units of work (episodes, updates or transitions)."""
        with self._lock:
            # A stage that is taken up again, as between evaluations, moves to the end.
            self._stages = [*(stage for stage in self._stages if stage != name), name]
            self._completed, self._total = 0, max(1, total)
            self._history.clear()
            self._history.append((self._clock(), 0))
        self._print(f"{name}: {total}")

    def advance(self, completed: int, metrics: Mapping[str, float]) -> None:
        """`completed` units of the stage are finished, in all; the newest metrics."""
        with self._lock:
            now = self._clock()
            if len(self._history) == 1 and self._history[0][1] == 0 and completed > self._completed:
                # A resumed stage starts far from zero; that jump is no speed.
                first = completed if completed > self._total // 20 else 0
                self._history[0] = (self._history[0][0], first)
            self._completed = completed
            self._metrics.update(metrics)
            self._history.append((now, completed))
            while len(self._history) > 2 and now - self._history[0][0] > _RATE_SECONDS:
                self._history.popleft()
            due = now - self._printed >= PLAIN_SECONDS
        if due and self._live is None:
            self._print(self.plain_line())

    def episode(self, episode: Episode, transitions: int) -> None:
        """A rollout ended, the run's online transitions after it."""
        helped = int(episode.is_intervention.sum())
        with self._lock:
            task = self._tasks.setdefault(episode.task, _Task())
            task.rollouts.append((episode.success, helped, len(episode)))
        self.advance(transitions, {})

    def evaluated(self, name: str, task: str, successes: int, episodes: int) -> None:
        """An evaluation of one task ended; the one named "warmup" is shown as before."""
        with self._lock:
            shown = self._tasks.setdefault(task, _Task())
            if name == "warmup":
                shown.before = _ratio(successes, episodes)
            else:
                shown.after = _ratio(successes, episodes)
        self._print(f"evaluation {name}: {task} {successes} of {episodes}")

    def note(self, text: str) -> None:
        """A line to be read: the newest stay in view, all are printed without a terminal."""
        with self._lock:
            self._notes.append(text)
        self._print(text)

    @property
    def steps_per_second(self) -> float:
        """Units of the stage per second over the last half minute; NaN before the second."""
        with self._lock:
            if len(self._history) < 2:
                return math.nan
            (t0, c0), (t1, c1) = self._history[0], self._history[-1]
        return (c1 - c0) / (t1 - t0) if t1 > t0 else math.nan

    @property
    def seconds_left(self) -> float:
        """Time the stage still needs at this speed; NaN while unknown."""
        rate = self.steps_per_second
        return (self._total - self._completed) / rate if rate > 0 else math.nan

    def plain_line(self) -> str:
        """The state in one line without colour."""
        with self._lock:
            stage = self._stages[-1] if self._stages else "starting"
            parts = [f"{stage} {self._completed}/{self._total}"]
            parts += [f"{n} {_percent(t.success)}" for n, t in self._tasks.items() if t.rollouts]
            parts += [f"{name} {value}" for name, value in self._figures() if value != "-"]
        return " | ".join([*parts, f"left {_duration(self.seconds_left)}"])

    def render(self) -> RenderableType:
        """The view as a rich renderable."""
        with self._lock:
            parts: list[RenderableType] = [self._heading(), self._bar(), self._task_table()]
            shown = self._figures()
            figures = Table.grid(*([""] * len(shown)), expand=True, padding=(0, 1))
            for column in figures.columns:
                column.ratio, column.no_wrap = 1, True
            figures.add_row(*(Text(name, _QUIET) for name, _ in shown))
            figures.add_row(*(Text(value, "bold") for _, value in shown))
            parts.append(Padding(figures, (0, 1, 0, 1)))
            parts += [Text(f" {note}", _QUIET) for note in self._notes]
        title = Text.assemble((" HiL-DAFT ", _ACCENT), ("talk and tweak ", _QUIET))
        return Panel(Group(*parts), title=title, title_align="left", border_style="#5f6f6f")

    def _heading(self) -> RenderableType:
        line = Text(" ")
        for stage in self._stages[:-1][-_STAGES:]:
            line.append(f"✓ {stage}   ", _QUIET)
        if self._stages:
            line.append(f"● {self._stages[-1]}", _ACCENT)
        grid = Table.grid(expand=True)
        grid.add_column()
        grid.add_column(justify="right")
        grid.add_row(line, Text(f"{_duration(self._clock() - self._began)} elapsed ", _QUIET))
        return grid

    def _bar(self) -> RenderableType:
        share = self._completed / self._total
        grid = Table.grid(expand=True, padding=(0, 1))
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True)
        count = f"{self._completed:,} of {self._total:,}".replace(",", " ")
        grid.add_row(
            ProgressBar(
                total=1.0, completed=min(1.0, share), complete_style=_GOOD, finished_style=_GOOD
            ),
            Text.assemble(
                (f"{100 * share:3.0f} %", "bold"),
                (f"  {count}  left {_duration(self.seconds_left)}", _QUIET),
            ),
        )
        return Padding(grid, (0, 1, 0, 1))

    def _task_table(self) -> RenderableType:
        table = Table(box=SIMPLE_HEAD, expand=True, header_style=_QUIET, border_style="#5f6f6f")
        table.add_column("task", no_wrap=True)
        table.add_column(f"last {WINDOW} rollouts", no_wrap=True, min_width=WINDOW)
        for heading in ("success", "before", "after", "Q", "eps"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, task in self._tasks.items():
            table.add_row(
                Text(name, "bold"),
                _dots(task.rollouts),
                Text(_percent(task.success), "bold"),
                _percent(task.before),
                Text(_percent(task.after), _GOOD),
                _number(self._metrics.get(f"actor/qbar/{name}", math.nan)),
                _number(self._metrics.get(f"actor/eps/{name}", math.nan)),
            )
        return table

    def _figures(self) -> list[tuple[str, str]]:
        rollouts = [rollout for task in self._tasks.values() for rollout in task.rollouts]
        helped = _ratio(sum(r[1] for r in rollouts), sum(r[2] for r in rollouts))
        return [
            ("intervention", _percent(helped)),
            ("obedience", _number(self._metrics.get("refinement/obedience", math.nan))),
            ("updates per step", _number(self._metrics.get("rollout/update_to_data", math.nan))),
            ("steps/s", _number(self.steps_per_second, 1)),
        ]

    def _print(self, line: str) -> None:
        if self._live is None:
            with self._lock:
                self._printed = self._clock()
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _dots(rollouts: Sequence[tuple[bool, int, int]] | deque[tuple[bool, int, int]]) -> Text:
    """Full green: success alone; full amber: success with help; hollow red: failure."""
    text = Text()
    for success, helped, _ in rollouts:
        text.append("●" if success else "○", (_HELPED if helped else _GOOD) if success else _BAD)
    return text


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f} %"


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
