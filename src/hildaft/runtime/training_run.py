"""The learner's half of a run, on one machine or many: replay from the store, warm-up, checkpoints, metrics."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, final, runtime_checkable

from safetensors.torch import save as save_safetensors

from hildaft.algo.checkpoint import list_checkpoints, read_newest, write_checkpoint
from hildaft.algo.training import Learner, Metrics
from hildaft.data.episodes import EpisodeStore
from hildaft.data.replay import States
from hildaft.runtime.metrics import MetricsWriter
from hildaft.types import CONTROL_HZ, Episode, HilDaftError

CHECKPOINT_TRANSITIONS: Final = 500
"""Online transitions between two checkpoints."""
CHECKPOINT_UPDATES: Final = 1_000
"""Warm-up updates between two checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """How far a run is, in the units that curves are drawn against."""

    transitions: int
    robot_minutes: float
    wall_minutes: float


@runtime_checkable
class View(Protocol):
    """Who watches a run: the terminal, or nobody."""

    def stage(self, name: str, total: int) -> None:
        """A stage begins: `total` units of work."""
        ...

    def advance(self, completed: int, metrics: Metrics) -> None:
        """So many units are finished; the newest metrics."""
        ...

    def episode(self, episode: Episode, transitions: int) -> None:
        """A rollout ended."""
        ...

    def note(self, text: str) -> None:
        """A line to be read."""
        ...


@final
class TrainingRun:
    """What a run folder holds of the learning: consumed episodes, checkpoints, metrics.

    Episodes are consumed in the order of the store, so a resumed run goes on as if it had never stopped.
    """

    def __init__(
        self,
        folder: Path,
        learner: Learner,
        view: View,
        stop: threading.Event,
        on_taken: Callable[[int, Episode], None] | None = None,
    ) -> None:
        """`on_taken` is told the number and the episode of each that the replay buffer takes, not of those restored."""
        self._folder, self.learner = folder, learner
        self._on_taken = on_taken
        self._view, self._stop = view, stop
        self.store: Final = EpisodeStore(folder / "episodes")
        self.metrics: Final = MetricsWriter(folder, view.note)
        self.consumed = 0
        """Episodes of the store that were taken so far, those that have left it since among them."""
        self._last = -1
        """Number in the store of the newest of them."""
        self._step = 0
        """Of the newest checkpoint; those that follow must not count as older, with fewer transitions or not."""
        self._wall_before_s = 0.0
        self._started = time.monotonic()

    @property
    def clock(self) -> Clock:
        """How far the run is."""
        transitions = self.learner.online_transitions
        return Clock(
            transitions=transitions,
            robot_minutes=transitions / CONTROL_HZ / 60,
            wall_minutes=(self._wall_before_s + time.monotonic() - self._started) / 60,
        )

    def restore(self) -> None:
        """Goes to the newest whole checkpoint, where there is one, and fills the replay buffer from the store."""
        checkpoints = self._folder / "checkpoints"
        if not list_checkpoints(checkpoints):
            return
        newest = read_newest(checkpoints)
        if newest.warning:
            self._view.note(newest.warning)
        self.learner.load_state(newest.tensors)
        self.consumed, self._step = int(str(newest.meta["episodes"])), newest.step
        taken = self._taken_before(newest.meta)
        for index in taken:
            self.learner.add_episode(self.store.read(index))
        # The newest that is there: if those after it have left, their numbers may be given out again.
        self._last = taken[-1] if taken else -1
        self._wall_before_s = float(str(newest.meta["wall_s"]))
        self._view.note(
            f"resumed at {self.learner.warmup_updates} warm-up updates,"
            f" {self.learner.online_transitions} online transitions"
        )
        if missing := self.consumed - len(taken):
            self._view.note(
                f"{missing} of {self.consumed} episodes it had learned from are no longer in {self.store.folder};"
                " it goes on without them"
            )
            # Episodes to come must not be taken for those.
            self.checkpoint()

    def _taken_before(self, meta: Mapping[str, object]) -> tuple[int, ...]:
        """Numbers of the episodes that a checkpoint's replay buffer had, as far as they are still there."""
        indices = self.store.indices
        if "last_episode" in meta:
            last = int(str(meta["last_episode"]))
            return tuple(index for index in indices if index <= last)
        # A checkpoint of an older version has the count alone.
        if self.consumed > len(indices):
            msg = (
                f"run folder {self._folder}: the checkpoint knows {self.consumed} episodes, the store holds"
                f" {len(indices)}; put the missing files back or start a new run"
            )
            raise HilDaftError(msg)
        return indices[: self.consumed]

    def checkpoint(self) -> None:
        """Writes everything a resume needs besides the episodes."""
        meta = {
            "episodes": self.consumed,
            "last_episode": self._last,
            "wall_s": self._wall_before_s + time.monotonic() - self._started,
            "transitions": self.learner.online_transitions,
            "warmup_updates": self.learner.warmup_updates,
            "online_updates": self.learner.online_updates,
        }
        now = self.learner.warmup_updates + self.learner.online_transitions
        self._step = max(self._step, now)
        checkpoints = self._folder / "checkpoints"
        write_checkpoint(checkpoints, self.learner.state(), meta, step=self._step)

    def take(self, episode: Episode) -> None:
        """Puts the store's next episode into the replay buffer."""
        self.learner.add_episode(episode)
        self._last = self._waiting()[0]
        if self._on_taken is not None:
            self._on_taken(self._last, episode)
        self.consumed += 1

    def report(self, episode: Episode) -> Metrics:
        """Shows and writes how a rollout that was taken went."""
        learner = self.learner
        self._view.episode(episode, learner.online_transitions)
        metrics = {
            f"rollout/success/{episode.task}": float(episode.success),
            f"rollout/success/{episode.robot}/{episode.task}": float(episode.success),
            f"rollout/length/{episode.task}": float(len(episode)),
            "rollout/intervention_share": float(episode.is_intervention.mean()),
            "rollout/update_to_data": learner.online_updates / learner.online_transitions,
        }
        self.write_metrics(metrics)
        return metrics

    def acting_weights(self) -> bytes:
        """What a robot's side needs to act, as it is published: a safetensors file."""
        return save_safetensors(self.learner.dual_actor.weights())

    def next_stored(self) -> Episode | None:
        """The store's next episode that was not taken yet, if there is one."""
        waiting = self._waiting()
        return self.store.read(waiting[0]) if waiting else None

    def _waiting(self) -> tuple[int, ...]:
        """Numbers of the stored episodes that were not taken yet."""
        return tuple(index for index in self.store.indices if index > self._last)

    def warm_up(self, updates: int) -> None:
        """Stage I on the demonstrations taken so far, checkpointed on the way."""
        learner = self.learner
        if learner.warmup_updates == 0:
            taken = [index for index in self.store.indices if index <= self._last]
            demonstrations = [self.store.read(index) for index in taken]
            states = States.of(demonstrations, learner.dual_actor.device)
            learner.fit_normalisation(states)
        if learner.warmup_updates < updates:
            self._view.stage("warm-up", updates)
        while learner.warmup_updates < updates and not self._stop.is_set():
            until = min(learner.warmup_updates + CHECKPOINT_UPDATES, updates)
            learner.warm_up(until, self._on_warmup_metrics, self._stop)
            self.checkpoint()

    def on_online_metrics(self, updates: int, metrics: Metrics) -> None:
        """Shows and writes what an online update reports."""
        del updates
        self._view.advance(self.learner.online_transitions, metrics)
        self.write_metrics(dict(metrics))

    def _on_warmup_metrics(self, updates: int, metrics: Metrics) -> None:
        self._view.advance(updates, metrics)
        self.write_metrics({f"warmup/{name}": value for name, value in metrics.items()})

    def write_metrics(self, values: dict[str, float]) -> None:
        """Appends a row, at the step the run is at."""
        updates = self.learner.warmup_updates + self.learner.online_updates
        self.metrics.write(self.learner.online_transitions, updates, values)
