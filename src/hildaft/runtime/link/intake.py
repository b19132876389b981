"""The learner's end of the experience channel: every episode once, in order, on disk before it is confirmed."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import grpc

from hildaft.data.episode_file import EpisodeSummary, find_fault, parse_episode
from hildaft.data.episodes import EpisodeStore, StoreBusyError
from hildaft.runtime.link.wire import Refusal
from hildaft.types import ActionScale, HilDaftError


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a worker, and every episode, has to agree with."""

    run: str
    tasks: tuple[str, ...]
    encoder_hash: str
    action_scale: ActionScale
    widths: tuple[int, int, int]
    """Of h, image features and proprioception."""


@dataclass(slots=True)
class Tally:
    """What one worker has delivered."""

    sequence: int = 0
    """The last number on disk; 0 before the first."""
    episodes: int = 0
    transitions: int = 0
    successes: int = 0
    gaps: int = 0
    """Episodes that the worker said it cannot deliver (damaged there, or refused here)."""


@final
class Intake:
    """Inserts episodes into the store, keyed by (worker, sequence) within one run. Thread-safe.

    The keys are in the episode files themselves, so what was confirmed is known again after any restart without
    a second file that could disagree.

    Args:
        store: what is learned from.
        evaluations: what is not: episodes that only say how good the policy is.

    Raises:
        HilDaftError: a store cannot be read.
    """

    def __init__(self, store: EpisodeStore, evaluations: EpisodeStore, terms: Terms) -> None:
        self.store: Final = store
        self.evaluations: Final = evaluations
        self.terms: Final = terms
        self.arrived: Final = threading.Event()
        """Set at every insert; whoever waits for episodes clears it."""
        self.failure: HilDaftError | None = None
        """Why the store cannot take more, such as a full disk; the learner stops on it."""
        self.demonstrations: Final[dict[str, int]] = dict.fromkeys(terms.tasks, 0)
        """Stored demonstrations by task."""
        self.count = 0
        """Stored episodes to learn from."""
        self.evaluated: Final[dict[tuple[str, int, int], int]] = {}
        """Task, scene seed and policy version of an evaluation episode -> its number in the store of these."""
        self.repeated: Final[list[Path]] = []
        """Files found at the start whose worker and number an earlier file has already; they count for nothing."""
        self._lock = threading.Lock()
        self._tallies: dict[str, Tally] = {}
        # One worker's numbers run through both stores.
        found = [*store.summaries(), *evaluations.summaries()]
        for summary in sorted(found, key=lambda s: 0 if s.origin is None else s.origin.sequence):
            origin = summary.origin
            if origin is not None and origin.sequence <= self.tally(origin.worker).sequence:
                self.repeated.append(summary.path)
            else:
                self._book(summary, summary.index)

    def tally(self, worker: str) -> Tally:
        """What this worker has delivered so far."""
        return self._tallies.get(worker, Tally())

    def insert(self, worker: str, sequence: int, previous: int, payload: bytes) -> int:
        """Makes one episode durable and returns the worker's last number on disk; a repeated one is only confirmed.

        Raises:
            Refusal: the episode is out of order, damaged, or does not fit the run; or the disk is full.
        """
        with self._lock:
            durable = self.tally(worker).sequence
            if 0 < sequence <= durable:
                return durable
            if self.failure is not None:
                # The learner is about to stop: what it took now might stand in the store unbooked.
                raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, str(self.failure))
            if previous != durable or sequence <= previous:
                raise Refusal(
                    grpc.StatusCode.ABORTED,
                    f"sequence {sequence} after {previous}: {durable} is the last one here; send what follows it",
                )
            summary = self._checked(worker, sequence, payload)
            store = self.evaluations if summary.source == "eval" else self.store
            try:
                index = store.append_bytes(payload, summary.task, summary.source)
            except StoreBusyError as error:
                # Passes once connections or files are closed: the worker keeps the episode and asks again.
                raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
            except HilDaftError as error:
                self.failure = error
                self.arrived.set()
                raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
            self._book(summary, index)
            self.arrived.set()
            return sequence

    def _checked(self, worker: str, sequence: int, payload: bytes) -> EpisodeSummary:
        name = Path(f"{worker}-{sequence}")
        terms = self.terms
        try:
            summary, episode = parse_episode(0, name, payload)
        except HilDaftError as error:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        origin = summary.origin
        if origin is None or (origin.worker, origin.sequence) != (worker, sequence):
            fault = f"its header says {origin}, not {worker} {sequence}"
        elif summary.task not in terms.tasks:
            fault = f"task={summary.task!r}: this run has {', '.join(terms.tasks)}"
        elif summary.encoder_hash != terms.encoder_hash:
            fault = f"encoder_hash={summary.encoder_hash!r}: this run has {terms.encoder_hash!r}"
        elif (fault := find_fault(episode)) is None:
            widths = (episode.h.shape[1], episode.features.shape[1], episode.proprio.shape[1])
            if widths != terms.widths:
                fault = f"widths (h, features, proprio)={widths}: this run has {terms.widths}"
        if fault is not None:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"episode {name}: {fault}")
        return summary

    def _book(self, summary: EpisodeSummary, index: int) -> None:
        if summary.source == "eval":
            key = (summary.task, summary.seed, summary.policy_version)
            self.evaluated.setdefault(key, index)
        else:
            self.count += 1
        if summary.source == "demo" and summary.task in self.demonstrations:
            self.demonstrations[summary.task] += 1
        origin = summary.origin
        if origin is None:
            return
        tally = self._tallies.setdefault(origin.worker, Tally())
        tally.gaps += origin.sequence - tally.sequence - 1
        tally.sequence = origin.sequence
        if summary.source == "eval":
            return
        tally.episodes += 1
        tally.transitions += summary.steps
        tally.successes += summary.success
