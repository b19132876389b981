"""The worker: latency of encode, act and step, and whether 10 Hz holds while the learner trains beside it.

`python benchmarks/worker.py [--seconds 60]` prints JSON. Latencies of encode and act are this thread's CPU time, called
one after the other; those of the loop are wall time, with a second process that trains without a pause and gives way
as `hildaft learner` does by the clock. What others take of the cores meanwhile is measured and said.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from common import TASKS, Figure, Neighbours, launched, write_out
from hildaft.algo.dual_actor import HILDAFT
from hildaft.algo.policy import DualActorPolicy
from hildaft.build import build_encoders, build_policy
from hildaft.config import PRESETS
from hildaft.eval.statistics import wilson_interval
from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.robots.safety import SafeRobot
from hildaft.runtime.interaction import LoopTiming, Pacing, run_episode
from hildaft.runtime.precedence import yield_to_robots
from hildaft.types import NULL_COMMAND, Action, RefinementCommand, Tweak
from learner import Updates
from synthetic import filled_replay

COMMAND = RefinementCommand((1, 0, -1))


class Talker:
    """An operator who says the same in every step and never tweaks, so that every action is refined."""

    def begin(self, task: str, seed: int) -> None:
        """Nothing to prepare."""

    def speak(self) -> RefinementCommand:
        return COMMAND

    def tweak(self, policy_action: Action) -> Tweak | None:
        del policy_action
        return None


def cpu_ms(run: Callable[[], object], calls: int) -> list[float]:
    """Of each call, after some that are not counted."""
    taken: list[float] = []
    for call in range(calls + 20):
        start = time.thread_time()
        run()
        if call >= 20:
            taken.append(1e3 * (time.thread_time() - start))
    return taken


def percentile_figure(values: Sequence[float], percent: int, against: str) -> Figure:
    """One percentile, with the spread of that percentile over five parts of the measurement."""
    parts = [float(np.percentile(part, percent)) for part in np.array_split(np.array(values), 5)]
    middle = float(np.percentile(values, percent))
    return Figure(round(middle, 4), "ms", round(min(parts), 4), round(max(parts), 4), against)


def train_for_ever() -> None:
    """The learner beside the worker: online updates without a pause."""
    yield_to_robots()
    updates = Updates(HILDAFT, filled_replay(TASKS), TASKS)
    updates.online()
    print("training", flush=True)
    while True:
        updates.online()


def run_loop(robot: SafeRobot, policy: DualActorPolicy, seconds: float) -> LoopTiming:
    """Episodes at 10 Hz with refinement in every step, for so long."""
    pacing = Pacing(10.0)
    deadline = time.monotonic() + seconds
    seed = 0
    while time.monotonic() < deadline:
        task = TASKS[seed % len(TASKS)]
        run_episode(robot, policy, Talker(), task, seed, "eval", pacing=pacing)
        seed += 1
    return pacing.timing()


def late_interval(timing: LoopTiming) -> tuple[float, float]:
    """Wilson's interval of the share of late steps, as if each were late or not by itself."""
    interval = wilson_interval(timing.late_steps, timing.steps)
    return interval.low, interval.high


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--train", action="store_true", help="only that; used by itself")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.train:
        train_for_ever()
    config = PRESETS["hildaft"]
    encoders = build_encoders(config)
    policy = build_policy(config, encoders)
    bolt = BoltRobot("A")
    try:
        observation = bolt.reset("pick", 0)
        encoded = encoders.encode(observation, "pick")
        # A new object each time: the encoders remember the observation they saw last.
        encode = cpu_ms(lambda: encoders.encode(replace(observation), "pick"), 300)
        primary = cpu_ms(lambda: policy.act(encoded, NULL_COMMAND), 2000)
        refined = cpu_ms(lambda: policy.act(encoded, COMMAND), 2000)
        robot = SafeRobot(bolt)
        neighbours = Neighbours()
        with subprocess.Popen(
            [sys.executable, __file__, "--train"], env=launched(), stdout=subprocess.PIPE
        ) as learner:
            try:
                assert learner.stdout is not None
                learner.stdout.readline()
                start = time.thread_time()
                timing = run_loop(robot, policy, arguments.seconds)
            finally:
                learner.kill()
        others = neighbours.cores()
        busy = round(1e3 * (time.thread_time() - start) / timing.steps, 2)
    finally:
        bolt.close()
    figures = {
        "backbone.encode_p50_ms": percentile_figure(encode, 50, "both cameras, CPU time"),
        "worker.encode_p99_ms": percentile_figure(encode, 99, "both cameras, CPU time"),
        "worker.act_primary_p99_ms": percentile_figure(primary, 99, "one action, CPU time"),
        "worker.act_p50_ms": percentile_figure(refined, 50, "with refinement, CPU time"),
        "worker.act_p99_ms": percentile_figure(refined, 99, "with refinement, CPU time"),
        "worker.cpu_ms_per_step": Figure(
            busy, "ms", busy, busy, "everything at the robot, resets included, of 100 ms at 10 Hz"
        ),
    }
    loop: dict[str, Any] = asdict(timing)
    extra: dict[str, Any] = {"loop_beside_the_learner": loop}
    late = round(100 * timing.late_steps / timing.steps, 3)
    low, high = (round(100 * bound, 3) for bound in late_interval(timing))
    # Others can only make steps late: on a busy machine the figure is an upper bound, and says so.
    figures["worker.late_share"] = Figure(
        late,
        "%",
        low,
        high,
        f"{timing.steps} steps at 10 Hz beside a learner, others kept {others:.2f} cores busy; 95 % interval",
    )
    write_out(figures, extra)


if __name__ == "__main__":
    main()
