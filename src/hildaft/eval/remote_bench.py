"""Evaluation on the workers' robots: every scene once, by whichever is free; one file, as local training writes it."""

import threading
from pathlib import Path
from typing import Final, final

from hildaft.algo.training import Learner, Metrics
from hildaft.eval.evaluate import (
    EvaluationRecord,
    EvaluationResult,
    Outcome,
    TaskEvaluation,
    evaluation_seed,
    outcome_of,
    read_evaluations,
)
from hildaft.eval.local_bench import (
    EVALUATION_SEED_OFFSET,
    HELD_OUT_EPISODES,
    BenchView,
    diagnose,
    keep_evaluation,
    last_evaluated,
)
from hildaft.runtime.link.intake import Intake
from hildaft.runtime.link.roster import Evaluation, Roster
from hildaft.runtime.link.server import WeightShelf
from hildaft.runtime.training_run import Clock
from hildaft.types import Episode

_POLL_S: Final = 0.2


@final
class RemoteBench:
    """Implements the session's `Evaluator`: hands the scenes out by the roster and reads what the intake stored.

    The episodes are on disk, known by task, seed and policy version: an evaluation that a restart interrupted goes
    on where it was.
    """

    def __init__(
        self,
        folder: Path,
        intake: Intake,
        roster: Roster,
        shelf: WeightShelf,
        view: BenchView,
        stop: threading.Event,
        *,
        preset: str,
        seed: int,
        step_limit: int,
    ) -> None:
        self._folder, self._intake, self._roster, self._shelf = folder, intake, roster, shelf
        self._view, self._stop = view, stop
        self._preset, self._seed, self._step_limit = preset, seed, step_limit
        self._evaluated = last_evaluated(folder)

    def evaluated_at(self) -> int:
        """Online transitions at the newest evaluation; 0 before the first."""
        return self._evaluated

    def evaluate(self, name: str, episodes: int, learner: Learner, clock: Clock) -> Metrics:
        """Evaluates the newest published weights in silence and without tweaks; nothing where that is done already.

        Raises:
            HilDaftError: the disk takes no more.
        """
        done = read_evaluations(self._folder)
        if any(r.name == name and r.transitions == clock.transitions for r in done):
            return {}
        seed, tasks = EVALUATION_SEED_OFFSET + self._seed, self._intake.terms.tasks
        scenes = tuple((t, evaluation_seed(seed, t, n)) for n in range(episodes) for t in tasks)
        asked = Evaluation(scenes=scenes, weights=self._shelf.name, version=self._shelf.version)
        self._view.stage(f"evaluate ({name})", len(scenes))
        if not self._wait_for(asked):
            return {}
        met: dict[str, list[Outcome]] = {task: [] for task in tasks}
        held_out: list[Episode] = []
        for task, scene in scenes:
            number = self._intake.evaluated[(task, scene, asked.version)]
            episode = self._intake.evaluations.read(number)
            if len(met[task]) < HELD_OUT_EPISODES:
                held_out.append(episode)
            met[task].append(outcome_of(episode))
        result = EvaluationResult(
            tasks=tuple(
                TaskEvaluation(
                    task=task, talk="none", outcomes=tuple(outcomes), step_limit=self._step_limit
                )
                for task, outcomes in met.items()
            )
        )
        record = EvaluationRecord(
            name=name,
            transitions=clock.transitions,
            robot_minutes=clock.robot_minutes,
            wall_minutes=clock.wall_minutes,
            preset=self._preset,
            seed=self._seed,
            result=result,
            diagnostics=diagnose(learner, held_out, self._intake.terms.action_scale),
        )
        keep_evaluation(self._folder, record, self._view)
        self._evaluated = record.transitions
        return record.diagnostics

    def _wait_for(self, asked: Evaluation) -> bool:
        """Until every scene's episode is stored; False where the run was stopped before."""
        self._roster.evaluation, self._roster.stage = asked, "evaluation"
        while not self._stop.is_set():
            self._intake.arrived.clear()
            if self._intake.failure is not None:
                raise self._intake.failure
            known = sum((*s, asked.version) in self._intake.evaluated for s in asked.scenes)
            self._view.advance(known, {})
            if known == len(asked.scenes):
                return True
            self._intake.arrived.wait(_POLL_S)
        return False
