"""What a robot's side and its learner exchange: experience one way, weights the other. No torch, no socket.

Two implementations: `InProcessChannel`, where both share a process (`demo`, `train`), and the link's `WorkerLink`.
"""

import threading
from dataclasses import dataclass
from typing import Final, Protocol, final, runtime_checkable

from hildaft.data.episode_builder import Journal
from hildaft.data.episodes import EpisodeStore
from hildaft.types import Episode


@dataclass(frozen=True, slots=True)
class Weights:
    """Published weights: a safetensors file and the name and version they go by."""

    name: str
    version: int
    tensors: bytes


@runtime_checkable
class Channel(Protocol):
    """The robot's end of the two channels."""

    @property
    def journal(self) -> Journal | None:
        """Where each step of an episode under way goes at once; None where a kill may cost that episode."""
        ...

    @property
    def weights(self) -> Weights | None:
        """The newest weights; None before the first."""
        ...

    @property
    def weight_age_s(self) -> float:
        """Time since these were known to be the learner's newest weights."""
        ...

    def put(self, episode: Episode) -> None:
        """Takes a finished episode: once this returns it is on disk, and the learner gets it once."""
        ...


@final
class InProcessChannel:
    """Both ends in one process: episodes go straight into the learner's store, weights are handed over."""

    def __init__(self, store: EpisodeStore) -> None:
        self.journal: Final = None
        self._store, self._lock = store, threading.Lock()
        self._weights: Weights | None = None

    @property
    def weights(self) -> Weights | None:
        """The newest weights; None before the first."""
        with self._lock:
            return self._weights

    @property
    def weight_age_s(self) -> float:
        """Always 0: there is no learner that could be away."""
        return 0.0

    def put(self, episode: Episode) -> None:
        """Appends the episode to the store."""
        self._store.append(episode)

    def publish(self, tensors: bytes, version: int) -> None:
        """The learner's end of the weight channel: puts these in the place of the ones before."""
        with self._lock:
            self._weights = Weights(str(version), version, tensors)
