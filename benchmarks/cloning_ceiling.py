"""How well can the frozen encoders' h carry the tasks? Clones plenty of expert data, with corrections, and evaluates.

Rounds of DAgger: clean expert episodes first, then episodes that the clone drives while the oracle labels every
state. No critic, no reinforcement learning: what is missing to 100 % is vision or the head, not the method.

    python benchmarks/cloning_ceiling.py --expert 100 --rounds 2 --per-round 60 --updates 8000
"""

import json
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

from hildaft.build import build_encoders, build_learner, build_policy
from hildaft.config import PRESETS
from hildaft.data.replay import States
from hildaft.eval.evaluate import evaluate
from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.runtime.interaction import Pacing, run_episode
from hildaft.teleop.oracle import oracle_action
from hildaft.types import NULL_COMMAND, Action, Episode, RefinementCommand, Tweak


@dataclass(frozen=True)
class Arguments:
    """Amounts."""

    expert: int = 100
    """Clean expert episodes per task."""
    rounds: int = 2
    """DAgger rounds after these."""
    per_round: int = 60
    """Episodes per task and round."""
    updates: int = 8_000
    """Updates of the primary actor per round."""
    episodes: int = 50
    """Evaluation episodes per task."""
    seed: int = 0
    """Decides scenes and weights."""
    robot: Literal["A", "B"] = "A"
    """Variant of the bench; the encoders have never seen B."""
    out: Path | None = None
    """JSON file to write."""


class Labeller:
    """An operator that drives for a share of the steps and otherwise only records what it would have done."""

    def __init__(self, robot: BoltRobot, drive: float, seed: int) -> None:
        self._robot, self._drive = robot, drive
        self._rng = np.random.default_rng(seed)
        self.labels: list[Action] = []

    def begin(self, task: str, seed: int) -> None:
        del task, seed
        self.labels = []

    def speak(self) -> RefinementCommand:
        return NULL_COMMAND

    def tweak(self, policy_action: Action) -> Tweak | None:
        del policy_action
        label = oracle_action(self._robot.scene_state(), self._robot.action_scale)
        self.labels.append(label)
        return Tweak(label) if self._rng.random() < self._drive else None


def as_demonstration(episode: Episode, labels: list[Action]) -> Episode:
    """The episode with every state labelled by the oracle, as if it had been demonstrated."""
    return replace(
        episode,
        source="demo",
        executed_action=np.stack(labels).astype(np.float32),
        is_intervention=np.zeros(len(episode), dtype=bool),
        images={},
    )


def main() -> None:
    given = tyro.cli(Arguments)
    torch.set_num_threads(1)
    config = replace(PRESETS["bc"], seed=given.seed, robot=given.robot)
    encoders = build_encoders(config)
    learner = build_learner(config, encoders)
    policy = build_policy(config, encoders)
    robot = BoltRobot(config.robot)
    episodes: list[Episode] = []
    figures: list[dict[str, object]] = []
    losses: list[float] = []
    for number in range(given.rounds + 1):
        labeller = Labeller(robot, drive=1.0 if number == 0 else 0.1, seed=number)
        count = given.expert if number == 0 else given.per_round
        for task in config.tasks:
            for index in range(count):
                seed = 100_000 * (number + 1) + index
                episode = run_episode(
                    robot,
                    policy,
                    labeller,
                    task,
                    seed,
                    "online",
                    pacing=Pacing(),
                    keep_images=False,
                )
                episodes.append(as_demonstration(episode, labeller.labels))
                learner.add_episode(episodes[-1])
        if number == 0:
            learner.fit_normalisation(States.of(episodes, learner.dual_actor.device))
        until = learner.warmup_updates + given.updates
        learner.warm_up(until, lambda _, m: losses.append(m["actor/bc_loss"]), threading.Event())
        policy.load_weights(learner.dual_actor.weights(), number)
        result = evaluate(robot, policy, config.tasks, given.episodes, seed=5_000)
        rows = sum(len(episode) for episode in episodes)
        figures.append(
            {
                "round": number,
                "pairs": rows,
                "bc_loss": float(np.mean(losses[-20:])),
                "tasks": result.to_json(),
            }
        )
        summary = {
            t.task: f"{t.successes}/{t.episodes} len {np.mean(t.lengths):.1f}" for t in result.tasks
        }
        print(number, rows, f"bc {np.mean(losses[-20:]):.4f}", summary, flush=True)
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1))
    robot.close()


if __name__ == "__main__":
    main()
