"""A run whose robots are elsewhere: the learner serves them, and trains on what they deliver.

Stages follow one another by what is on disk: demonstrations until every task has enough, warm-up, then online
updates at the given ratio to the transitions that came in, with evaluations on the workers' robots in between.
Workers may join, leave and come back at any time.
"""

import threading
from collections.abc import Callable
from typing import Final, final

from hildaft.runtime.link.intake import Intake
from hildaft.runtime.link.roster import Roster
from hildaft.runtime.link.server import Progress, WeightShelf
from hildaft.runtime.session import Evaluator, Plan
from hildaft.runtime.training_run import CHECKPOINT_TRANSITIONS, TrainingRun, View

PUBLISH_UPDATES: Final = 50
"""Online updates between two publications while no episode comes in."""
_POLL_S: Final = 0.2


@final
class RemoteSession:
    """Runs a plan on the episodes that workers deliver. The intake writes them, this reads them in store order.

    Without an evaluator the robots train only; policies are then evaluated elsewhere, from the checkpoints.
    """

    def __init__(
        self,
        run: TrainingRun,
        plan: Plan,
        intake: Intake,
        roster: Roster,
        shelf: WeightShelf,
        progress: Progress,
        evaluator: Evaluator | None,
        view: View,
        stop: threading.Event,
    ) -> None:
        self._run, self._plan, self._learner = run, plan, run.learner
        self._intake, self._roster, self._shelf = intake, roster, shelf
        self._progress, self._evaluator, self._view, self._stop = progress, evaluator, view, stop
        self._checkpointed = 0

    def run(self) -> bool:
        """Goes from wherever the folder stands to the end; False where `stop` was set before that.

        Raises:
            HilDaftError: damaged files, or a disk that takes no more; what was confirmed is on disk.
        """
        try:
            self._run.restore()
            self._checkpointed = self._learner.online_transitions
            # What is there already, for `hildaft status`: the next episode may be long in coming.
            self._progress.warmup_updates = self._learner.warmup_updates
            self._progress.online_transitions = self._learner.online_transitions
            self._progress.online_updates = self._learner.online_updates
            self._collect_demonstrations()
            if not self._stop.is_set():
                self._roster.stage = "warm-up"
                self._run.warm_up(self._plan.warmup_updates)
            self._publish()
            if self._learner.online_transitions == 0:
                self._evaluate("warmup", self._plan.episodes_before)
            self._fine_tune()
            self._evaluate("final", self._plan.episodes)
            if not self._stop.is_set():
                self._roster.stage = "finished"
            return not self._stop.is_set()
        finally:
            self._run.metrics.close()

    def _collect_demonstrations(self) -> None:
        plan = self._plan
        wanted = plan.demonstrations * len(plan.tasks)
        if self._learner.warmup_updates > 0:
            return
        self._view.stage("demonstrations from the workers", wanted)
        while not self._stop.is_set():
            self._take_arrived()
            counts = self._intake.demonstrations
            self._view.advance(sum(min(n, plan.demonstrations) for n in counts.values()), {})
            if all(count >= plan.demonstrations for count in counts.values()):
                return
            self._intake.arrived.wait(_POLL_S)

    def _fine_tune(self) -> None:
        plan, learner = self._plan, self._learner
        if self._stop.is_set():
            return
        self._go_online()
        while learner.online_transitions < plan.online_transitions and not self._stop.is_set():
            # Before anything new is taken: an evaluation that a restart interrupted goes on with the same weights.
            if self._evaluation_due():
                self._evaluate("online", plan.episodes_during)
                self._go_online()
            self._take_arrived()
            if not self._update(PUBLISH_UPDATES, self._intake.arrived):
                self._intake.arrived.wait(_POLL_S)
        if not self._stop.is_set():
            while self._update(PUBLISH_UPDATES, self._stop):
                pass
        self._run.checkpoint()

    def _go_online(self) -> None:
        self._roster.stage = "online"
        self._view.stage("online fine-tuning", self._plan.online_transitions)

    def _evaluation_due(self) -> bool:
        if self._evaluator is None:
            return False
        last = self._evaluator.evaluated_at()
        return self._plan.evaluation_due(last, self._learner.online_transitions)

    def _evaluate(self, name: str, episodes: int) -> None:
        """On the workers' robots, which do nothing else meanwhile; the weights stay as they are until it is done."""
        if self._stop.is_set() or self._evaluator is None:
            return
        self._run.checkpoint()
        self._publish()
        measured = self._evaluator.evaluate(name, episodes, self._learner, self._run.clock)
        self._run.write_metrics({f"refinement/{name}": v for name, v in measured.items()})

    def _update(self, most: int, until: threading.Event) -> bool:
        """At most so many online updates, then new weights; False where the ratio is met already."""
        learner = self._learner
        before = learner.online_updates
        enough = _Either(until, self._stop, lambda: learner.online_updates - before >= most)
        learner.catch_up(self._run.on_online_metrics, enough)
        self._progress.online_updates = learner.online_updates
        if learner.online_updates > before:
            self._publish()
        return learner.online_updates > before

    def _publish(self) -> None:
        version = self._learner.warmup_updates + self._learner.online_updates
        self._progress.warmup_updates = self._learner.warmup_updates
        self._shelf.publish(self._run.acting_weights(), version)

    def _take_arrived(self) -> None:
        """Takes what the intake has written since, into the replay buffer."""
        self._intake.arrived.clear()
        if self._intake.failure is not None:
            self._run.checkpoint()
            raise self._intake.failure
        while not self._stop.is_set() and (episode := self._run.next_stored()) is not None:
            self._run.take(episode)
            if episode.source == "online":
                self._run.report(episode)
            self._progress.online_transitions = self._learner.online_transitions
        if self._learner.online_transitions - self._checkpointed >= CHECKPOINT_TRANSITIONS:
            self._run.checkpoint()
            self._checkpointed = self._learner.online_transitions


@final
class _Either(threading.Event):
    """Set as soon as one of two events is, or a condition holds."""

    def __init__(
        self, one: threading.Event, other: threading.Event, condition: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._one, self._other, self._condition = one, other, condition

    def is_set(self) -> bool:
        return self._one.is_set() or self._other.is_set() or self._condition()
