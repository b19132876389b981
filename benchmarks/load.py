"""Eight workers at 10 Hz against one learner that trains without pause: loss, insert times, the slow-down.

`python benchmarks/load.py [--workers 8] [--seconds 120] [--out docs/results/load.json]` writes load.json and load.md.
The workers are processes of their own: the real loop, spool and link, at the sizes of the embedded backbone, with
cached features and pictures in the encoders' and the simulator's place. Robots number their steps in ledgers, with
which the learner's store is compared. Everything shares this machine's cores.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import numpy as np

from fault_peers import CountingRobot, NumberPolicy, SilentOperator
from hildaft.data.episodes import EpisodeStore
from hildaft.runtime.interaction import Pacing
from hildaft.runtime.link.client import LearnerAwayError, LearnerClient, WorkerFacts, WorkerLink
from hildaft.runtime.link.spool import Spool
from hildaft.runtime.rig import Companion
from hildaft.runtime.worker import Worker, wait_for
from hildaft.types import CONTROL_HZ, ActionScale, Encoded, Observation

HERE: Final = Path(__file__)
TASKS: Final = ("upright", "pick", "assemble")
H, FEATURES, PROPRIO = 128, 160, 2
TOKEN: Final = "a token of this benchmark only"
RUN: Final = "load"
HASH: Final = "cached"
ROUND: Final = 25
"""Updates between two publications, and two looks for new episodes."""


class CachedRobot(CountingRobot):
    """Numbers its steps; shows one picture per camera, of the bench's sizes."""

    def __init__(self, folder: Path, boot: int) -> None:
        super().__init__(folder, boot, (40, 51))
        y, x = np.mgrid[0:256, 0:256] / 256
        picture = np.stack([0.7 + 0 * x, 0.7 - 0.2 * y, 0.6 + 0.1 * x], -1)
        picture[np.hypot(x - 0.4, y - 0.5) < 0.1] = (0.1, 0.5, 0.4)
        head = (255 * picture).astype(np.uint8)
        self._images = {"head": head, "wrist": np.ascontiguousarray(head[::2, ::2])}

    def _observe(self) -> Observation:
        return Observation(images=self._images, proprio=super()._observe().proprio)


class CachedPolicy(NumberPolicy):
    """Cached h and features; the step's number goes into h, where the ledger check looks for it."""

    encoder_hash = HASH

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self._h = rng.standard_normal(H).astype(np.float32)
        self._features = rng.standard_normal(FEATURES).astype(np.float32)

    def encode(self, observation: Observation, task: str) -> Encoded:
        h = self._h.copy()
        h[:2] = observation.proprio
        return Encoded(h=h, features=self._features, proprio=observation.proprio)


class TimedClient:
    """A client that remembers how long its inserts took."""

    def __init__(self, client: LearnerClient) -> None:
        self._client, self.insert_ms = client, []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - stands for the client
        return getattr(self._client, name)

    def call(self, method: str, request: Any) -> Any:  # noqa: ANN401 - generated classes
        start = time.perf_counter()
        reply = self._client.call(method, request)
        if method == "Insert":
            self.insert_ms.append(1e3 * (time.perf_counter() - start))
        return reply


def work(folder: Path, port: int) -> None:
    """One worker, until the learner is finished; writes what it measured."""
    folder.mkdir(parents=True)
    (folder / "boots").write_bytes(b".")
    stop, pacing = threading.Event(), Pacing(CONTROL_HZ)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    client = TimedClient(LearnerClient(f"127.0.0.1:{port}", TOKEN, None))
    facts = WorkerFacts(
        robot=folder.name, action_scale=ActionScale(), encoder_hash=HASH, tasks=TASKS
    )
    with contextlib.closing(Spool(folder / "spool", RUN, folder.name, say=say)) as spool:
        worker = Worker(
            CachedRobot(folder, 1),
            CachedPolicy(),
            Companion.simulated(SilentOperator()),
            spool,
            TASKS,
            pacing,
            local_seed=lambda index: index,
            say=say,
            stop=stop,
        )
        link = WorkerLink(client, spool, RUN, facts, health=worker.health, say=say)
        wait_for(link.join, LearnerAwayError, say, stop)
        with link:
            if not worker.run(link):
                raise SystemExit(1)
    timing, used = pacing.timing(), resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "insert_ms": client.insert_ms,
        "steps": timing.steps,
        "late": timing.late_steps,
        "hz": timing.achieved_hz,
        "cpu_s": used.ru_utime + used.ru_stime,
    }
    (folder / "found.json").write_text(json.dumps(found))


class Loaded:
    """The learner: trains without pause, takes what arrives, publishes as it goes."""

    def __init__(self, folder: Path) -> None:
        from common import DIMS
        from hildaft.algo.dual_actor import HILDAFT
        from hildaft.runtime.link.intake import Intake, Terms
        from hildaft.runtime.link.roster import Roster
        from hildaft.runtime.link.server import LinkServer, Progress, WeightShelf
        from learner import Updates
        from synthetic import filled_replay

        assert (DIMS.h, DIMS.features, DIMS.proprio) == (H, FEATURES, PROPRIO)
        self.updates = Updates(HILDAFT, filled_replay(TASKS), TASKS)
        self.store, self.shelf = EpisodeStore(folder / "episodes"), WeightShelf()
        terms = Terms(
            run=RUN,
            tasks=TASKS,
            encoder_hash=HASH,
            action_scale=ActionScale(),
            widths=(H, FEATURES, PROPRIO),
        )
        intake = Intake(self.store, EpisodeStore(folder / "evaluations"), terms)
        self.roster = Roster(intake, 0, lambda kind, task, index: index)
        self.roster.stage = "online"
        self.server = LinkServer(
            "127.0.0.1:0",
            TOKEN,
            None,
            config="",
            intake=intake,
            roster=self.roster,
            shelf=self.shelf,
            progress=Progress(),
        )
        self.version = self.taken = 0

    def train(self, seconds: float) -> float:
        """Online updates per second, with everything a learner does besides."""
        from dataclasses import replace

        from safetensors.torch import save as save_safetensors

        begun, updates = time.monotonic(), 0
        while time.monotonic() < begun + seconds:
            for _ in range(ROUND):
                self.updates.online()
            updates += ROUND
            for index in self.store.indices[self.taken :]:
                # As if made by the encoders that the replay was filled with.
                self.updates.replay.add_episode(replace(self.store.read(index), encoder_hash=""))
                self.taken += 1
            self.version += 1
            self.shelf.publish(save_safetensors(self.updates.actor.weights()), self.version)
        return updates / (time.monotonic() - begun)


def measure(workers: int, seconds: float, root: Path) -> dict[str, Any]:
    """Trains alone, then for as long under load; then lets the workers deliver what they have and counts."""
    from common import launched
    from faults import check

    learner = Loaded(root / "learner")
    with learner.server, contextlib.ExitStack() as stack:
        learner.train(min(5.0, seconds / 4))
        alone = learner.train(seconds)
        folders = [root / f"w{number}" for number in range(workers)]
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(HERE), "--worker", str(folder), str(learner.server.port)],
                    env=launched(),
                )
            )
            for folder in folders
        ]
        for process in processes:
            stack.callback(process.kill)
        while len(learner.roster.statuses()) < workers:
            if any(process.poll() is not None for process in processes):
                raise RuntimeError("a worker ended before it had joined")
            time.sleep(0.1)
        loaded = learner.train(seconds)
        learner.roster.stage = "finished"
        for process in processes:
            if process.wait(120) != 0:
                raise RuntimeError(f"worker: exit code {process.returncode}")
    found = [json.loads((folder / "found.json").read_text()) for folder in folders]
    inserts = [took for one in found for took in one["insert_ms"]]
    steps = sum(one["steps"] for one in found)
    p50, p99 = np.percentile(inserts, (50, 99))
    counts = check(root / "learner" / "episodes", folders)
    return {
        **dict(counts),
        "workers": workers,
        "seconds": seconds,
        "inserts": len(inserts),
        "insert_p50_ms": round(float(p50), 1),
        "insert_p99_ms": round(float(p99), 1),
        "insert_max_ms": round(max(inserts), 1),
        "episode_bytes": round(np.mean([p.stat().st_size for p in _files(root)])),
        "updates_per_s_alone": round(alone, 2),
        "updates_per_s_loaded": round(loaded, 2),
        "slow_down": round(alone / loaded, 3),
        "worker_hz_min": round(min(one["hz"] for one in found), 3),
        "late_share": round(sum(one["late"] for one in found) / steps, 4),
        "worker_cpu_s": round(sum(one["cpu_s"] for one in found), 1),
    }


def _files(root: Path) -> list[Path]:
    return list((root / "learner" / "episodes").glob("*.safetensors"))


ROWS: Final = (
    ("workers, each at 10 Hz", "workers"),
    ("seconds under load", "seconds"),
    ("transitions the robots made and the journals had", "ledger"),
    ("transitions in the learner's store", "transitions"),
    ("**transitions lost**", "lost"),
    ("**transitions twice**", "duplicated"),
    ("**out of a worker's order**", "reordered"),
    ("**torn episodes accepted**", "torn_accepted"),
    ("inserts", "inserts"),
    ("bytes of an episode, mean", "episode_bytes"),
    ("insert, from the call to the confirmation, p50 (ms)", "insert_p50_ms"),
    ("insert, p99 (ms)", "insert_p99_ms"),
    ("insert, longest (ms)", "insert_max_ms"),
    ("online updates per second without workers", "updates_per_s_alone"),
    ("online updates per second under load", "updates_per_s_loaded"),
    ("**slow-down of the learner**", "slow_down"),
    ("CPU of the workers on the same cores (s)", "worker_cpu_s"),
    ("slowest worker's rate (Hz)", "worker_hz_min"),
    ("share of late steps", "late_share"),
)


def page(document: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        "# Load",
        "",
        "Workers with cached features and pictures against one learner that trains without pause, all on the same",
        "cores: the slow-down holds what the workers themselves take of these.",
        "",
        f"`{document['command']}`  ",
        f"commit {document['commit']}, {document['date']}, {document['machine']}, load average before "
        f"{document['load_before']}",
        "",
        "| | |",
        "|---|---:|",
        *(f"| {text} | {document[name]:g} |" for text, name in ROWS),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and writes; exit code 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--out", type=Path, help="JSON; the page is written beside it")
    parser.add_argument("--worker", nargs=2, metavar=("FOLDER", "PORT"), help="used by itself")
    given = parser.parse_args()
    if given.worker:
        work(Path(given.worker[0]), int(given.worker[1]))
        return
    import torch

    from common import commit, machine

    torch.set_num_threads(1)
    before = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(given.workers, given.seconds, Path(folder))
    document = {
        "study": "load",
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": machine(),
        "load_before": before,
        **figures,
    }
    print(json.dumps(document, indent=1))
    if given.out is not None:
        given.out.write_text(json.dumps(document, indent=1) + "\n")
        given.out.with_suffix(".md").write_text(page(document))
    raise SystemExit(any(figures[n] for n in ("lost", "duplicated", "reordered", "torn_accepted")))


if __name__ == "__main__":
    main()
