"""A robot that notes when it was commanded and when it was told to hold, on the clock all processes share."""

import os
import time
from pathlib import Path

import numpy as np

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
