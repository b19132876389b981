"""The processes that `faults.py` kills: a learner without networks, and workers whose every step has a number.

The link, the spool, the intake and the worker loop are the real ones; only robot, policy and training are cheap.
"""

import argparse
import contextlib
import itertools
import os
import random
import sys
import threading
import time
from pathlib import Path

import numpy as np

from hildaft.data.episodes import EpisodeStore
from hildaft.runtime.interaction import Pacing
from hildaft.runtime.link.client import LearnerAwayError, LearnerClient, WorkerFacts, WorkerLink
from hildaft.runtime.link.intake import Intake, Terms
from hildaft.runtime.link.roster import Roster
from hildaft.runtime.link.server import LinkServer, Progress, WeightShelf
from hildaft.runtime.link.spool import Spool
from hildaft.runtime.rig import Companion
from hildaft.runtime.worker import Worker, wait_for
from hildaft.types import (
    NULL_COMMAND,
    ActionScale,
    Encoded,
    HilDaftError,
    Observation,
    StepResult,
    Tweak,
)

TOKEN = "the fault suite's own token"
RUN = "faults"
TASKS = ("reach", "push")
TERMS = Terms(
    run=RUN,
    tasks=TASKS,
    encoder_hash="counts",
    action_scale=ActionScale(),
    widths=(4, 2, 2),
)
FINISH = "finish"
"""A file of this name in the learner's folder ends the run."""


class CountingRobot:
    """Numbers its observations (boot, count) and writes every kept step's number into a ledger.

    A step is entered when the next one is asked for: by then the loop has journalled it.
    """

    def __init__(self, folder: Path, boot: int, steps: tuple[int, int]) -> None:
        self.name = "counter"
        self.action_scale = ActionScale()
        self._ledger = os.open(folder / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._boot, self._steps, self._rng = boot, steps, random.Random(boot)
        self._count = itertools.count()
        self._kept: int | None = None

    def reset(self, task: str, seed: int) -> Observation:
        self._enter()
        self._left = self._rng.randint(*self._steps)
        return self._observe()

    def step(self, action: np.ndarray) -> StepResult:
        self._enter()
        self._kept = self._now
        self._left -= 1
        observation = self._observe()
        done = self._left == 0
        return StepResult(observation, float(done), terminated=done, truncated=False)

    def stop(self) -> None:
        pass

    def _enter(self) -> None:
        if self._kept is not None:
            os.write(self._ledger, f"{self._boot} {self._kept}\n".encode())
            self._kept = None

    def _observe(self) -> Observation:
        self._now = next(self._count)
        image = np.full((16, 16, 3), self._now % 256, np.uint8)
        proprio = np.array([self._boot, self._now], np.float32)
        return Observation(images={"head": image}, proprio=proprio)


class NumberPolicy:
    """Passes the numbers on as the embedding."""

    encoder_hash = "counts"

    def __init__(self) -> None:
        self.version = 0

    def begin(self, seed: int) -> None:
        pass

    def load(self, tensors: bytes, version: int) -> None:
        self.version = version

    def encode(self, observation: Observation, task: str) -> Encoded:
        h = np.concatenate([observation.proprio, observation.proprio])
        return Encoded(h=h, features=h[:2], proprio=observation.proprio)

    def act(self, encoded: Encoded, command: object) -> np.ndarray:
        return np.full(7, 0.1, np.float32)


class SilentOperator:
    """Tweaks now and then."""

    def __init__(self) -> None:
        self._steps = itertools.count()

    def begin(self, task: str, seed: int) -> None:
        pass

    def speak(self) -> object:
        return NULL_COMMAND

    def tweak(self, policy_action: np.ndarray) -> Tweak | None:
        return Tweak(np.full(7, -0.1, np.float32)) if next(self._steps) % 7 == 3 else None

    def demonstrate(self) -> np.ndarray:
        return np.full(7, -0.1, np.float32)


def jump_clock(folder: Path) -> None:
    """From now on this process's wall clock leaps by up to a day, forth and back, every second or so.

    gRPC's Python and C parts read it one after the other to make and read a deadline; a true leap moves both alike,
    so they are left with the true clock here.
    """
    import types

    import grpc._channel
    import grpc._server

    true_time, rng, offset = time.time, random.Random(os.getpid()), [0.0]
    left = types.SimpleNamespace(**{**vars(time), "time": true_time})
    grpc._channel.time = grpc._server.time = left
    time.time = lambda: true_time() + offset[0]

    def leap() -> None:
        while True:
            time.sleep(rng.uniform(0.2, 1.5))
            offset[0] = rng.choice([-86_400.0, -3600.0, -17.0, 17.0, 3600.0, 86_400.0])
            # The disk may be full on purpose: then the leap is made, and not counted.
            with contextlib.suppress(OSError), (folder / "clock_jumps").open("ab") as file:
                file.write(b".")

    threading.Thread(target=leap, daemon=True).start()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_learner(folder: Path, port: int) -> int:
    """Serves until the file `finish` is there; exit code 2 where the store takes no more."""
    intake = Intake(EpisodeStore(folder / "episodes"), EpisodeStore(folder / "evaluations"), TERMS)
    roster = Roster(intake, 0, lambda kind, task, index: index)
    roster.stage = "online"
    shelf = WeightShelf()
    server = LinkServer(
        f"127.0.0.1:{port}",
        TOKEN,
        None,
        config="",
        intake=intake,
        roster=roster,
        shelf=shelf,
        progress=Progress(),
    )
    with server:
        for version in itertools.count(1):
            shelf.publish(b"weights" * 1000, version)
            if intake.failure is not None:
                raise intake.failure
            if (folder / FINISH).exists():
                roster.stage = "finished"
            if (folder / "leave").exists():
                break
            time.sleep(0.1)
    return 0


def run_worker(folder: Path, port: int, hz: float, keep_free_mib: int) -> int:
    """One worker beside a counting robot."""
    boots = folder / "boots"
    with boots.open("ab") as file:
        file.write(b".")
    boot = boots.stat().st_size
    stop = threading.Event()
    spool = Spool(folder / "spool", RUN, folder.name, say=say, keep_free_bytes=keep_free_mib << 20)
    client = LearnerClient(f"127.0.0.1:{port}", TOKEN, None)
    pacing = Pacing(hz)
    worker = Worker(
        CountingRobot(folder, boot, (3, 12)),
        NumberPolicy(),
        Companion.simulated(SilentOperator()),
        spool,
        TASKS,
        pacing,
        local_seed=lambda index: index,
        say=say,
        stop=stop,
        max_weight_age_s=600.0,
    )
    facts = WorkerFacts(
        robot="counter", action_scale=ActionScale(), encoder_hash="counts", tasks=TASKS
    )
    link = WorkerLink(client, spool, RUN, facts, health=worker.health, say=say)
    wait_for(link.join, LearnerAwayError, say, stop)
    with link:
        finished = worker.run(link)
    timing = pacing.timing()
    say(f"timing {timing.steps} {timing.late_steps} {timing.achieved_hz}")
    return 0 if finished else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["learner", "worker"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--hz", type=float, default=60.0)
    parser.add_argument("--keep-free-mib", type=int, default=0)
    given = parser.parse_args()
    try:
        given.folder.mkdir(parents=True, exist_ok=True)
        jump_clock(given.folder)
        if given.part == "learner":
            raise SystemExit(run_learner(given.folder, given.port))
        raise SystemExit(run_worker(given.folder, given.port, given.hz, given.keep_free_mib))
    except HilDaftError as error:
        say(f"hildaft: {error}")
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
