"""From a learner's update to the worker that acts with the new weights: two processes, the product's link on loopback.

`python benchmarks/publish.py [--rounds 40]` prints JSON. One round: an online update, publication, and the wait until
the worker's policy has acted with that version. Both processes read the machine's monotonic clock.
"""

import argparse
import contextlib
import importlib.util
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import save as save_safetensors

from common import DIMS, TASKS, Figure, launched, spread, write_out
from hildaft.algo.actors import Actors
from hildaft.algo.dual_actor import HILDAFT
from hildaft.algo.policy import DualActorPolicy
from hildaft.types import NULL_COMMAND, ActionScale, Encoded, Observation
from learner import WORDS, Updates
from synthetic import filled_replay, random_table

TOKEN: Final = "a token of this benchmark only"
RUN: Final = "bench"
HASH: Final = "bench"


class NoEncoders:
    """The encoders are no part of what is measured."""

    hash = HASH

    def encode(self, observation: Observation, task: str) -> Encoded:
        """Never called."""
        raise NotImplementedError


def work(port: int, folder: Path) -> None:
    """The worker: acts at 100 Hz with the newest weights; prints version and time when it first acted with them."""
    from hildaft.runtime.link.client import Health, LearnerClient, WorkerFacts, WorkerLink
    from hildaft.runtime.link.spool import Spool

    actors = Actors(HILDAFT.primary, HILDAFT.refinement, DIMS, random_table(WORDS), seed=0)
    policy = DualActorPolicy(NoEncoders(), actors, seed=0)
    rng = np.random.default_rng(0)
    encoded = Encoded(
        h=rng.standard_normal(DIMS.h).astype(np.float32),
        features=rng.standard_normal(DIMS.features).astype(np.float32),
        proprio=np.zeros(DIMS.proprio, dtype=np.float32),
    )
    client = LearnerClient(f"127.0.0.1:{port}", TOKEN, None)
    facts = WorkerFacts(robot="A", action_scale=ActionScale(), encoder_hash=HASH, tasks=TASKS)
    with contextlib.closing(Spool(folder, RUN, "bench", say=print)) as spool:
        link = WorkerLink(
            client,
            spool,
            RUN,
            facts,
            health=lambda: Health(state="acting", achieved_hz=10.0, late_share=0.0),
            say=lambda line: print(line, file=sys.stderr),
        )
        link.join()
        with link:
            held = None
            while True:
                newest = link.weights
                if newest is not None and newest is not held:
                    policy.load(newest.tensors, newest.version)
                    held = newest
                    policy.act(encoded, NULL_COMMAND)
                    print(newest.version, time.monotonic(), flush=True)
                else:
                    policy.act(encoded, NULL_COMMAND)
                threading.Event().wait(0.01)


def measure(rounds: int) -> tuple[list[float], list[float], int]:
    """Milliseconds per round, of which until handed to the link, and bytes published."""
    from hildaft.data.episodes import EpisodeStore
    from hildaft.runtime.link.intake import Intake, Terms
    from hildaft.runtime.link.roster import Roster
    from hildaft.runtime.link.server import LinkServer, Progress, WeightShelf

    updates = Updates(HILDAFT, filled_replay(TASKS), TASKS)
    shelf = WeightShelf()
    totals: list[float] = []
    shares: list[float] = []
    size = 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        widths = (DIMS.h, DIMS.features, DIMS.proprio)
        terms = Terms(
            run=RUN, tasks=TASKS, encoder_hash=HASH, action_scale=ActionScale(), widths=widths
        )
        intake = Intake(
            EpisodeStore(folder / "episodes"), EpisodeStore(folder / "evaluations"), terms
        )
        server = stack.enter_context(
            LinkServer(
                "127.0.0.1:0",
                TOKEN,
                None,
                config="",
                intake=intake,
                roster=Roster(intake, 0, lambda kind, task, index: index),
                shelf=shelf,
                progress=Progress(),
            )
        )
        command = [sys.executable, __file__, "--worker", str(server.port), str(folder / "spool")]
        worker = stack.enter_context(
            subprocess.Popen(command, env=launched(), stdout=subprocess.PIPE, text=True)
        )
        stack.callback(worker.kill)
        assert worker.stdout is not None
        rng = np.random.default_rng(0)
        for version in range(1, rounds + 3):
            updates.online()
            start = time.monotonic()
            tensors = save_safetensors(updates.actor.weights())
            shelf.publish(tensors, version)
            handed = time.monotonic()
            seen, acted = worker.stdout.readline().split()
            while int(seen) != version:
                seen, acted = worker.stdout.readline().split()
            if version > 2:
                totals.append(1e3 * (float(acted) - start))
                shares.append(1e3 * (handed - start))
            size = len(tensors)
            # Out of step with whatever rhythm the worker asks in.
            threading.Event().wait(float(rng.uniform(0.0, 0.6)))
    return totals, shares, size


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--worker", nargs=2, metavar=("PORT", "FOLDER"), help="used by itself")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.worker:
        work(int(arguments.worker[0]), Path(arguments.worker[1]))
    if importlib.util.find_spec("hildaft.runtime.link") is None:
        write_out({}, {"skipped": "publish: this version has no hildaft.runtime.link"})
        return
    totals, handing, size = measure(arguments.rounds)
    figures = {
        "publish.p50_ms": spread(
            totals, "ms", "from the update's end to an action with its weights"
        ),
        "publish.handing_ms": spread(handing, "ms", "of which until the link has the bytes"),
        "publish.bytes": Figure(size, "B", size, size, "both actors and the normalisation"),
    }
    write_out(figures, {"p95_ms": round(float(np.percentile(totals, 95)), 1)})


if __name__ == "__main__":
    main()
