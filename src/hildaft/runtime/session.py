"""A training run on one machine: demonstrations, warm-up, online stage, evaluations, all resumable.

The online stage is a pipeline of two threads. While the worker runs episode k with the weights published at its
start, the learner makes the updates that the episodes before k allow. At the episode's end both meet: the episode
goes to disk, then into the replay buffer, and new weights are published. Two runs of one seed are therefore
identical, and a resumed run is identical to one that was never stopped: an episode found in the store takes the
place of the one that would have been run.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol, final, runtime_checkable

import numpy as np

from hildaft.algo.training import Learner, Metrics
from hildaft.runtime.channel import InProcessChannel
from hildaft.runtime.precedence import yield_to_robots
from hildaft.runtime.training_run import CHECKPOINT_TRANSITIONS, Clock, TrainingRun, View
from hildaft.types import Episode, HilDaftError

DEMONSTRATION_TRIES: Final = 4
"""Attempts allowed per wanted demonstration; the operator fails now and then, as people do."""


@runtime_checkable
class Evaluator(Protocol):
    """Finds out how good the published policy is, on this machine's robot or on the workers'."""

    def evaluated_at(self) -> int:
        """Online transitions at the newest evaluation; 0 before the first."""
        ...

    def evaluate(self, name: str, episodes: int, learner: Learner, clock: Clock) -> Metrics:
        """Evaluates the newest published policy on fresh seeds and writes the result; skips what is there.

        Returns obedience and its companions, nothing where skipped.
        """
        ...


@runtime_checkable
class Bench(Evaluator, Protocol):
    """The robot's side of a run: robot, acting policy and operator bound together."""

    def demonstrate(self, task: str, seed: int) -> Episode:
        """One demonstration by the operator; in the store where it succeeded."""
        ...

    def rollout(self, task: str, seed: int) -> Episode:
        """One episode of the policy with the operator beside it, in the store."""
        ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a session does, and how much of it."""

    tasks: tuple[str, ...]
    seed: int
    real_time: bool
    demonstrations: int
    warmup_updates: int
    online_transitions: int
    episodes: int
    """Episodes per task of the last evaluation."""
    episodes_before: int
    """Episodes per task of the warm-up policy's evaluation."""
    episodes_during: int
    """Episodes per task of the evaluations in between."""
    evaluate_every: int
    """Transitions between evaluations."""

    def evaluation_due(self, last: int, now: int) -> bool:
        """Whether one in between is due at `now` online transitions, the last one made at `last`."""
        crossed = last // self.evaluate_every < now // self.evaluate_every
        return crossed and now < self.online_transitions


def scene_seed(run_seed: int, kind: str, task: int, index: int) -> int:
    """The seed of one episode's scene and operator; different for every argument."""
    kinds = {"demo": 1, "online": 2, "correction": 3}
    return int(np.random.SeedSequence([run_seed, kinds[kind], task, index]).generate_state(1)[0])


@final
class Session:
    """Runs a plan in a run folder. Everything it makes is in `episodes`, `checkpoints`, metrics and evaluations.

    The bench takes the other end of the channel, which leads into the run's store.
    """

    def __init__(
        self,
        run: TrainingRun,
        plan: Plan,
        channel: InProcessChannel,
        bench: Bench,
        view: View,
        stop: threading.Event,
        on_taken: Callable[[int, Episode], None] | None = None,
    ) -> None:
        self._run, self._plan, self._learner = run, plan, run.learner
        self._channel, self._bench, self._view, self._stop = channel, bench, view, stop

    def run(self) -> bool:
        """Goes from wherever the folder stands to the end; False where `stop` was set before that.

        Raises:
            HilDaftError: damaged files, a full disk, or an operator who cannot demonstrate a task.
        """
        try:
            self._run.restore()
            self._record_demonstrations()
            self._warm_up()
            self._fine_tune()
            return not self._stop.is_set()
        finally:
            self._run.metrics.close()

    @property
    def clock(self) -> Clock:
        """How far the run is."""
        return self._run.clock

    def _record_demonstrations(self) -> None:
        plan = self._plan
        wanted = plan.demonstrations * len(plan.tasks)
        if self._run.consumed >= wanted:
            return
        self._view.stage("record demonstrations", wanted)
        for number, task in enumerate(plan.tasks):
            first, last = number * plan.demonstrations, (number + 1) * plan.demonstrations
            attempts = count()
            while first <= self._run.consumed < last and not self._stop.is_set():
                episode = self._run.next_stored()
                while episode is None and not self._stop.is_set():
                    attempt = next(attempts)
                    if attempt >= DEMONSTRATION_TRIES * plan.demonstrations:
                        msg = f"operator: task {task!r} was not demonstrated in {attempt} attempts; try another seed"
                        raise HilDaftError(msg)
                    seed = scene_seed(plan.seed, "demo", number, attempt)
                    if any(s.seed == seed and s.task == task for s in self._run.store.summaries()):
                        continue
                    tried = self._bench.demonstrate(task, seed)
                    if tried.success:
                        episode = tried
                if episode is not None:
                    self._run.take(episode)
                    self._view.advance(self._run.consumed, {})

    def _warm_up(self) -> None:
        if self._stop.is_set():
            return
        self._run.warm_up(self._plan.warmup_updates)
        if self._learner.online_transitions == 0:
            self._evaluate("warmup", self._plan.episodes_before)

    def _fine_tune(self) -> None:
        plan, learner = self._plan, self._learner
        demonstrations = plan.demonstrations * len(plan.tasks)
        checkpointed = learner.online_transitions
        self._view.stage("online fine-tuning", plan.online_transitions)
        with ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="learner",
            # Without a clock nobody waits for the robot, and several runs may share the machine.
            initializer=yield_to_robots if plan.real_time else None,
        ) as learning:
            while learner.online_transitions < plan.online_transitions:
                if self._stop.is_set():
                    self._run.checkpoint()
                    return
                index = self._run.consumed - demonstrations
                self._one_episode(learning, index)
                now = learner.online_transitions
                if now - checkpointed >= CHECKPOINT_TRANSITIONS:
                    self._run.checkpoint()
                    checkpointed = now
                if plan.evaluation_due(self._bench.evaluated_at(), now):
                    self._evaluate("online", plan.episodes_during)
                    self._view.stage("online fine-tuning", plan.online_transitions)
        learner.catch_up(self._run.on_online_metrics, self._stop)
        self._run.checkpoint()
        self._evaluate("final", plan.episodes)

    def _one_episode(self, learning: ThreadPoolExecutor, index: int) -> None:
        plan, learner = self._plan, self._learner
        number = index % len(plan.tasks)
        self._publish()
        episode_over, stored = threading.Event(), None
        updates = learning.submit(learner.catch_up, self._run.on_online_metrics, episode_over)
        try:
            episode = stored = self._run.next_stored()
            if episode is None:
                seed = scene_seed(plan.seed, "online", number, index)
                episode = self._bench.rollout(plan.tasks[number], seed)
        except BaseException:
            episode_over.set()
            raise
        finally:
            # By the clock the robot does not wait for the learner; the ratio achieved is reported. No robot moves for
            # an episode that is there already.
            if plan.real_time and stored is None:
                episode_over.set()
            updates.result()
        self._run.take(episode)
        self._view.advance(learner.online_transitions, self._run.report(episode))

    def _publish(self) -> None:
        self._channel.publish(self._run.acting_weights(), self._learner.online_updates)

    def _evaluate(self, name: str, episodes: int) -> None:
        if self._stop.is_set():
            return
        self._publish()
        measured = self._bench.evaluate(name, episodes, self._learner, self.clock)
        metrics = {f"refinement/{name}": value for name, value in measured.items()}
        self._run.write_metrics(metrics)
        self._view.advance(episodes * len(self._plan.tasks), metrics)
