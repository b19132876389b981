"""Who works for a learner: what each worker is, how it is, and what it does next."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, final

import grpc

from hildaft.runtime.link import link_pb2 as pb
from hildaft.runtime.link.intake import Intake
from hildaft.runtime.link.wire import Refusal
from hildaft.types import ActionScale

Stage: TypeAlias = Literal["demonstrations", "warm-up", "online", "evaluation", "finished"]

MAX_WORKERS: Final = 1_000
"""Names a learner remembers; a limit, so that nobody can fill its memory with names."""
LIVE_S: Final = 5.0
"""A worker that was silent for longer counts as away; it reports twice a second."""


@dataclass(slots=True)
class _Entry:
    robot: str
    tasks: tuple[str, ...]
    seen_s: float
    report: Any = field(default_factory=pb.ReportRequest)
    assigned: str = ""
    """Task of the assignment that is out."""
    evaluates: tuple[str, int] | None = None
    """Task and scene seed of the evaluation episode that is out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Episodes that say how good one set of weights is."""

    scenes: tuple[tuple[str, int], ...]
    """Task and scene seed of each."""
    weights: str
    """Name of the weights that act."""
    version: int
    """Their version, by which finished episodes are known."""


@final
class Roster:
    """Joins workers, keeps their reports and shares the tasks out. Thread-safe.

    Args:
        intake: knows what is stored and what fits the run.
        demonstrations: wanted per task.
        seed_of: (kind, task number, index) -> scene seed, the kind being "demo" or "online".
    """

    def __init__(
        self,
        intake: Intake,
        demonstrations: int,
        seed_of: Callable[[str, int, int], int],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stage: Stage = "demonstrations"
        self.evaluation: Evaluation | None = None
        """What the stage "evaluation" is about."""
        self._intake, self._demonstrations, self._seed_of = intake, demonstrations, seed_of
        self._clock, self._lock = clock, threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._issued = intake.count

    def join(self, worker: str, request: Any) -> None:  # noqa: ANN401 - generated class
        """Takes a worker in.

        Raises:
            Refusal: it does not fit the run; the reason names the field, its value and what this run has.
        """
        terms = self._intake.terms
        scale = ActionScale(request.translation_m, request.rotation_rad)
        unknown = [task for task in request.tasks if task not in terms.tasks]
        if scale != terms.action_scale:
            reason = f"action scale {scale}: this run has {terms.action_scale}"
        elif request.encoder_hash != terms.encoder_hash:
            reason = f"encoder hash {request.encoder_hash[:80]!r}: this run has {terms.encoder_hash!r}; use its weights"
        elif unknown or not request.tasks:
            reason = f"tasks {unknown[:3] or 'none'}: this run has {', '.join(terms.tasks)}"
        elif not request.robot or len(request.robot) > 80:
            reason = f"robot={request.robot[:80]!r}: a name of 1 to 80 characters is expected"
        else:
            reason = None
        if reason:
            raise Refusal(
                grpc.StatusCode.FAILED_PRECONDITION, f"worker {worker} is refused: {reason}"
            )
        with self._lock:
            if worker not in self._entries and len(self._entries) >= MAX_WORKERS:
                raise Refusal(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{MAX_WORKERS} workers have joined this run already",
                )
            self._entries[worker] = _Entry(
                robot=request.robot, tasks=tuple(request.tasks), seen_s=self._clock()
            )

    def report(self, worker: str, request: Any) -> None:  # noqa: ANN401 - generated class
        """Keeps a worker's newest report."""
        with self._lock:
            entry = self._entry(worker)
            entry.report, entry.seen_s = request, self._clock()

    def require_joined(self, worker: str) -> None:
        """Raises Refusal (NOT_FOUND) for a worker that has not joined since this learner started."""
        with self._lock:
            self._entry(worker)

    def assign(self, worker: str) -> Any:  # noqa: ANN401 - generated class
        """What this worker does next: the task that is furthest behind, of those it can do."""
        with self._lock:
            entry = self._entry(worker)
            entry.assigned, entry.evaluates, entry.seen_s = "", None, self._clock()
            if self.stage == "finished":
                return pb.Assignment(activity=pb.Assignment.FINISHED)
            if self.stage == "warm-up":
                return pb.Assignment(activity=pb.Assignment.WAIT)
            if self.stage == "evaluation":
                return self._next_scene(entry)
            tasks = self._intake.terms.tasks
            # Work that is out counts, or every worker would be sent to the same task.
            out = [e.assigned for e in self._entries.values() if self._is_live(e)]
            if self.stage == "demonstrations":
                done = self._intake.demonstrations
                open_tasks = [
                    t for t in entry.tasks if done[t] + out.count(t) < self._demonstrations
                ]
                if not open_tasks:
                    return pb.Assignment(activity=pb.Assignment.WAIT)
                task = min(open_tasks, key=lambda t: done[t] + out.count(t))
                kind, activity = "demo", pb.Assignment.DEMONSTRATE
            else:
                task = entry.tasks[self._issued % len(entry.tasks)]
                task = min(entry.tasks, key=lambda t: (out.count(t), t != task))
                kind, activity = "online", pb.Assignment.ROLLOUT
            entry.assigned = task
            self._issued += 1
            seed = self._seed_of(kind, tasks.index(task), self._issued)
            return pb.Assignment(activity=activity, task=task, seed=seed)

    def _next_scene(self, entry: _Entry) -> Any:  # noqa: ANN401 - generated class
        """The first scene that is neither stored nor under way, for whichever robot asks: each is met once."""
        asked = self.evaluation
        out = {e.evaluates for e in self._entries.values() if self._is_live(e)}
        if asked is not None:
            for task, seed in asked.scenes:
                known = (task, seed, asked.version) in self._intake.evaluated
                if task in entry.tasks and not known and (task, seed) not in out:
                    entry.evaluates = (task, seed)
                    return pb.Assignment(
                        activity=pb.Assignment.EVALUATE,
                        task=task,
                        seed=seed,
                        weights=asked.weights,
                    )
        return pb.Assignment(activity=pb.Assignment.WAIT)

    def statuses(self) -> list[Any]:
        """One generated `WorkerStatus` per worker, in the order of joining."""
        with self._lock:
            return [self._status(worker, entry) for worker, entry in self._entries.items()]

    def _status(self, worker: str, entry: _Entry) -> Any:  # noqa: ANN401 - generated class
        tally, report = self._intake.tally(worker), entry.report
        return pb.WorkerStatus(
            worker=worker,
            robot=entry.robot,
            state=report.state if self._is_live(entry) else "away",
            tasks=entry.tasks,
            seen_s=self._clock() - entry.seen_s,
            weights=report.weights,
            weight_age_s=report.weight_age_s,
            durable_sequence=tally.sequence,
            episodes=tally.episodes,
            transitions=tally.transitions,
            successes=tally.successes,
            gaps=tally.gaps,
            pending_episodes=report.pending_episodes,
            pending_bytes=report.pending_bytes,
            achieved_hz=report.achieved_hz,
            late_share=report.late_share,
        )

    def _is_live(self, entry: _Entry) -> bool:
        return self._clock() - entry.seen_s <= LIVE_S

    def _entry(self, worker: str) -> _Entry:
        entry = self._entries.get(worker)
        if entry is None:
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"worker {worker} has not joined: join first")
        return entry
