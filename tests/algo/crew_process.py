"""One process of a learner on invented episodes, as torchrun would start it: `crew_process.py OUT`.

Process 0 warms up, goes back to an earlier state and on again, then online; every process writes the state it ends
with.
"""

import dataclasses
import sys
import threading
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from hildaft.algo.config import HILDAFT, PAPER
from hildaft.algo.crew import Crew, Order
from hildaft.algo.dual_actor import DualActor
from hildaft.algo.training import Learner, TrainingConfig
from hildaft.data.replay import Dims, Replay, States
from hildaft.types import COMMAND_COUNT, NULL_COMMAND, Episode

TASKS = ("upright", "pick")
DIMS = Dims(h=6, features=5, proprio=2)
PRESETS = {
    "hildaft": HILDAFT,
    "paper": PAPER,
    "turns": dataclasses.replace(HILDAFT, tasks_per_update=1),
}
TRAINING = TrainingConfig(
    demonstrations=2,
    warmup_updates=6,
    online_transitions=160,
    batch_size=32,
    update_to_data=0.05,
    rollout_gate=10,
    talk_tweak_gate=4,
    refinement_batch_size=16,
)


def episode(task, source, seed, steps=20):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    human = np.zeros(steps, bool)
    human[5:10] = source == "online"
    last = np.arange(steps) == steps - 1
    action = normal(steps, 7).clip(-1, 1)
    return Episode(
        task=task,
        source=source,
        robot="A",
        seed=seed,
        policy_version=0,
        success=True,
        h=normal(steps + 1, DIMS.h),
        features=normal(steps + 1, DIMS.features),
        proprio=normal(steps + 1, DIMS.proprio),
        policy_action=action,
        human_action=np.where(human[:, None], -action, np.float32(np.nan)),
        executed_action=np.where(human[:, None], -action, action),
        is_intervention=human,
        spoken=np.full(steps, NULL_COMMAND.index),
        refinement=np.where(human, COMMAND_COUNT - 1, NULL_COMMAND.index),
        displacement_m=0.01 * normal(steps, 3),
        reward=last.astype(np.float32),
        terminated=last,
        truncated=np.zeros(steps, bool),
    )


def make(crew, preset):
    table = torch.randn(COMMAND_COUNT, 4, generator=torch.Generator().manual_seed(1))
    config = PRESETS[preset]
    agent = DualActor(config, TASKS, DIMS, table, seed=3, crew=crew)
    replay = Replay(TASKS, DIMS, discount=0.97, capacity=4096)
    return Learner(TRAINING, agent, replay, seed=3, crew=crew)


def lead(learner):
    stop, reported = threading.Event(), []

    def keep(updates, metrics):
        reported.append(updates)

    demos = [episode(task, "demo", 10 * n + k) for n, task in enumerate(TASKS) for k in range(2)]
    for demo in demos:
        learner.add_episode(demo)
    learner.fit_normalisation(States.of(demos, torch.device("cpu")))
    learner.warm_up(4, keep, stop)
    before = learner.state()
    learner.warm_up(6, keep, stop)
    learner.load_state(before)
    learner.warm_up(6, keep, stop)
    for number in range(4):
        learner.add_episode(episode(TASKS[number % 2], "online", 100 + number, 40))
    learner.catch_up(keep, stop)
    assert learner.warmup_updates == 6
    assert learner.online_updates == 8
    assert reported


def main():
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    with Crew.from_environment() as crew:
        for preset in PRESETS:
            learner = make(crew, preset)
            if crew.rank == 0:
                lead(learner)
                crew.tell(Order.STOP)
            else:
                learner.follow()
            save_file(learner.state(), out / f"{preset}-{crew.size}-{crew.rank}.safetensors")


if __name__ == "__main__":
    main()
