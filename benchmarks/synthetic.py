"""Data of the right shapes; nothing is learned from it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from common import DIMS
from hildaft.data.replay import Replay
from hildaft.types import COMMAND_COUNT, NULL_COMMAND, Episode, Source


def random_episode(task: str, source: Source, rng: np.random.Generator, steps: int = 50) -> Episode:
    """An episode of noise; online ones hold an intervention with words."""

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    human = np.zeros(steps, dtype=bool)
    if source == "online":
        human[10:20] = True
    return Episode(
        task=task,
        source=source,
        robot="A",
        seed=0,
        policy_version=0,
        success=True,
        h=normal(steps + 1, DIMS.h),
        features=normal(steps + 1, DIMS.features),
        proprio=normal(steps + 1, DIMS.proprio),
        policy_action=normal(steps, 7).clip(-1, 1),
        human_action=normal(steps, 7).clip(-1, 1),
        executed_action=normal(steps, 7).clip(-1, 1),
        is_intervention=human,
        spoken=np.full(steps, NULL_COMMAND.index),
        refinement=np.where(human, COMMAND_COUNT - 1, NULL_COMMAND.index),
        displacement_m=normal(steps, 3),
        reward=(np.arange(steps) == steps - 1).astype(np.float32),
        terminated=np.arange(steps) == steps - 1,
        truncated=np.zeros(steps, dtype=bool),
    )


def filled_replay(tasks: Sequence[str], *, capacity: int = 32_768, episodes: int = 50) -> Replay:
    """Two fifths demonstrations, three fifths rollouts, of each task."""
    replay = Replay(tasks, DIMS, discount=0.97, capacity=capacity)
    rng = np.random.default_rng(0)
    for task in tasks:
        for number in range(episodes):
            source = "demo" if 5 * number < 2 * episodes else "online"
            replay.add_episode(random_episode(task, source, rng))
    return replay


def random_table(words: int) -> Tensor:
    """Stands for the 27 embedded commands."""
    return torch.randn(COMMAND_COUNT, words, generator=torch.Generator().manual_seed(0))
