"""A robot that notes when it was commanded and when it was told to hold, on the clock all processes share."""

import os
import time
from pathlib import Path

import numpy as np

from hildaft.robots.guard import Bounds, PoseGuard
from hildaft.robots.pose import Pose
from hildaft.robots.workspace import Workspace
from hildaft.types import ActionScale, HilDaftError, Observation, StepResult


class NotingArm:
    name = "noting"

    def __init__(self, notes: Path) -> None:
        self.action_scale = ActionScale()
        self._notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._camera_cut = notes.with_name("camera_cut")

    def reset(self, task, seed):
        if task == "refused":
            raise HilDaftError("task='refused': not this one")
        return self._observe()

    def step(self, action):
        self._note("step")
        while self._camera_cut.exists():
            time.sleep(0.01)
        return StepResult(self._observe(), float(action[0]), terminated=False, truncated=False)

    def stop(self):
        self._note("hold")

    def _note(self, what):
        os.write(self._notes, f"{what} {time.monotonic()}\n".encode())

    def _observe(self):
        image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
        return Observation(images={"head": image}, proprio=np.array([1, 0], np.float32))


class DrivingArm(NotingArm):
    """Drives to its start pose for 8 s in every reset, as a real arm does; each pose it is sent is noted."""

    START = Pose(np.array([0.3, 0.0, 0.2]), np.array([1.0, 0.0, 0.0, 0.0]))

    def __init__(self, notes: Path) -> None:
        super().__init__(notes)
        box = Workspace(low_m=(0.0, -0.1, 0.1), high_m=(1.7, 0.1, 0.3))
        bounds = Bounds(
            workspace=box,
            upright=self.START,
            scale=self.action_scale,
            leash_m=0.05,
            jump_m=0.1,
            jump_rad=1.0,
        )
        self._guard = PoseGuard(self.name, bounds, sleep=time.sleep)
        self.halted = self._guard.halted

    def reset(self, task, seed):
        start = self._guard.accept(self.START, check_jump=False)
        self._guard.commanded = start
        goal = start.moved(np.array([80 * self.action_scale.translation_m, 0.0, 0.0]), np.zeros(3))
        self._guard.drive(goal, self._send, self._look)
        return self._observe()

    def stop(self):
        with self._guard.holding():
            super().stop()

    def close(self):
        self._note("let_go")

    def _send(self, pose):
        with self._guard.sending():
            self._note("move")
            self._guard.commanded = pose

    def _look(self):
        return self._guard.accept(self._guard.commanded, check_jump=True)


def read_notes(path):
    return [
        (what, float(at)) for what, at in (line.split() for line in path.read_text().splitlines())
    ]


WORKER = """
import sys, time
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import numpy as np
from hildaft.robots.watchdog import WatchedRobot
from watched_arm import NotingArm
if __name__ == "__main__":
    robot = WatchedRobot(partial(NotingArm, Path(sys.argv[1])))
    robot.reset("reach", 0)
    print("ready", flush=True)
    while True:
        robot.step(np.zeros(7, np.float32))
        time.sleep(0.1)
"""

RESETTING_WORKER = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from hildaft.robots.watchdog import WatchedRobot
from watched_arm import DrivingArm
if __name__ == "__main__":
    robot = WatchedRobot(partial(DrivingArm, Path(sys.argv[1])))
    print("ready", flush=True)
    robot.reset("reach", 0)
"""
