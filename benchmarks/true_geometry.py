"""What the method reaches with perfect vision: a full run that reads the true geometry in place of image features.

Same demonstrations, operator, updates and evaluation as `hildaft train`; cameras are not rendered. What is missing to
100 % here is the method's, the operator's or the budget's; the rest, up to `hildaft train`'s figure, is vision's.

    python benchmarks/true_geometry.py --out runs/true-geometry --config.training.online-transitions 6000
"""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from unittest import mock

import numpy as np
import torch
import tyro

from hildaft import build
from hildaft.config import PRESETS, RunConfig
from hildaft.pretraining.targets import TARGET_DIM, geometry_targets
from hildaft.robots.bolt_sim.random_scenes import landmarks
from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.robots.bolt_sim.scene import BoltScene
from hildaft.types import Encoded, Observation, SceneState


@dataclass(frozen=True)
class Arguments:
    """A run like `hildaft train`'s."""

    out: Path
    """Run folder; must not exist."""
    config: Annotated[RunConfig, tyro.conf.arg(name="config")] = field(
        default_factory=lambda: PRESETS["hildaft"]
    )
    """As of `hildaft train`."""


class TrueGeometry:
    """Stands where the frozen encoders stand: h names the task, the features are the pretraining's targets."""

    hash = encoder_hash = "true geometry"
    feature_dim = TARGET_DIM

    def __init__(self, tasks: tuple[str, ...], robots: list[BoltRobot]) -> None:
        self._tasks, self._robots = tasks, robots
        self.h_dim = len(tasks)

    def encode(self, observation: Observation, task: str) -> Encoded:
        return Encoded(
            h=np.eye(self.h_dim, dtype=np.float32)[self._tasks.index(task)],
            features=geometry_targets(labels_of(self._robots[-1].scene_state()))[0],
            proprio=observation.proprio,
        )


def labels_of(state: SceneState) -> dict[str, np.ndarray]:
    """One state as the pretraining's label arrays."""
    return {
        "ee_position": state.ee_position_m[None],
        "ee_rotation": state.ee_rotation[None],
        "landmarks": landmarks(state)[None],
        "bolt_rotation": state.bolt_rotation[None],
        "jaw_opening": np.array([state.jaw_opening_m]),
        "held": np.array([float(state.bolt_held)]),
    }


def main() -> None:
    given = tyro.cli(Arguments)
    torch.set_num_threads(1)
    robots: list[BoltRobot] = []

    def make_robot(name: str) -> BoltRobot:
        robots.append(BoltRobot(name))
        return robots[-1]

    black = {
        "wrist": np.zeros((128, 128, 3), np.uint8),
        "head": np.zeros((256, 256, 3), np.uint8),
    }
    with (
        mock.patch.object(BoltScene, "render", return_value=black),
        mock.patch.object(build, "BoltRobot", make_robot),
        mock.patch.object(build, "build_encoders", lambda c: TrueGeometry(c.tasks, robots)),
        build.open_run(given.config, given.out, resume=False, stop=threading.Event()) as session,
    ):
        session.run()


if __name__ == "__main__":
    main()
