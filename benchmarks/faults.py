"""The fault suite of the link, with real processes: kills, a bad network, full disks, damage, clock jumps, bad peers.

`make faults` runs it in full and writes docs/results/faults.{md,json}; the tests run it short.
"""

import argparse
import atexit
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from fault_network import BadNetwork
from hildaft.data.episode_file import find_fault
from hildaft.data.episodes import EpisodeStore

PEERS = Path(__file__).parent / "fault_peers.py"


@dataclass
class Peer:
    """A process that is started again after every kill."""

    words: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    kills: int = 0

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PEERS), *self.words], stdout=log, stderr=log
            )
        # A suite that fails leaves no process behind; killing one that has ended does nothing.
        atexit.register(self.process.kill)

    def kill(self) -> None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.words} ended by itself:\n{self.log.read_text()[-2000:]}")
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.kills += 1

    def wait(self, timeout_s: float) -> int:
        assert self.process is not None
        return self.process.wait(timeout_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_steps(folder: Path, steps: int, deadline_s: float = 180.0) -> None:
    """Returns once the robot of this folder has entered so many further steps into its ledger."""
    ledger = folder / "ledger"

    def entered() -> int:
        return ledger.read_bytes().count(b"\n") if ledger.exists() else 0

    wanted, end = entered() + steps, time.monotonic() + deadline_s
    while entered() < wanted:
        if time.monotonic() > end:
            raise RuntimeError(f"{folder}: fewer than {wanted} steps after {deadline_s} s")
        time.sleep(0.02)


def check(store: Path, workers: list[Path]) -> Counter[str]:
    """What was lost, doubled, out of order or torn, by the ledgers the robots wrote."""
    found: Counter[str] = Counter(lost=0, duplicated=0, reordered=0, torn_accepted=0)
    episodes = EpisodeStore(store)
    found["torn_accepted"] += len(episodes.verify())
    stored: dict[str, list[tuple[int, int]]] = {}
    sequences: dict[str, int] = {}
    for summary in episodes.summaries():
        episode = episodes.read(summary.index)
        assert summary.origin is not None
        worker = summary.origin.worker
        rows = [(int(boot), int(count)) for boot, count in episode.h[:, :2]]
        steps = [b[1] - a[1] for a, b in itertools.pairwise(rows)]
        found["torn_accepted"] += find_fault(episode) is not None or set(steps) != {1}
        found["reordered"] += summary.origin.sequence <= sequences.get(worker, 0)
        sequences[worker] = summary.origin.sequence
        stored.setdefault(worker.partition(".")[0], []).extend(rows[:-1])
        found["episodes"] += 1
    for folder in workers:
        ledger = [
            (int(boot), int(count))
            for boot, count in (
                line.split() for line in (folder / "ledger").read_text().splitlines()
            )
        ]
        rows = stored.get(folder.name, [])
        found["transitions"] += len(rows)
        found["ledger"] += len(ledger)
        found["lost"] += len(set(ledger) - set(rows))
        found["duplicated"] += len(rows) - len(set(rows))
        found["reordered"] += rows != sorted(rows)
        # A kill may come after the journal's write and before the ledger's: one step per start at most.
        extra = len(set(rows) - set(ledger))
        assert extra <= (folder / "boots").stat().st_size, (folder, extra)
    return found


def finish(
    learner_folder: Path, learner: Peer, workers: list[Peer], timeout_s: float = 300.0
) -> None:
    """Ends a run in good order: the workers deliver what they have and leave."""
    (learner_folder / "finish").touch()
    for worker in workers:
        code = worker.wait(timeout_s)
        if code != 0:
            raise RuntimeError(
                f"{worker.words}: exit code {code}\n{worker.log.read_text()[-2000:]}"
            )
    (learner_folder / "leave").touch()
    learner.wait(timeout_s)


def kills(root: Path, wanted: int, seed: int, longest_s: float) -> dict[str, int]:
    """Kills worker, learner or both at random moments, over a bad network, until so many are done."""
    rng = random.Random(seed)
    port = free_port()
    learner_folder = root / "learner"
    learner_folder.mkdir(parents=True)
    folders = [root / "arm1", root / "arm2"]
    learner = Peer(["learner", str(learner_folder), str(port)], root / "learner.log")
    counted: Counter[str] = Counter()
    with BadNetwork(port, seed, badness=0.5) as network:
        workers = [
            Peer(["worker", str(folder), str(network.port)], root / f"{folder.name}.log")
            for folder in folders
        ]
        for peer in (learner, *workers):
            peer.start()
        wait_for_steps(folders[0], 20)
        # Not before: on a busy machine the processes may take as long to start.
        end = time.monotonic() + longest_s
        while sum(p.kills for p in (learner, *workers)) < wanted and time.monotonic() < end:
            time.sleep(rng.uniform(0.1, 2.0))
            victims = rng.choice([[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]])
            peers = [(learner, *workers)[victim] for victim in victims]
            for peer in peers:
                peer.kill()
            for victim in victims:
                counted["damaged_tails"] += victim > 0 and damage_tail(folders[victim - 1], rng)
            time.sleep(rng.choice([0.0, 0.0, 0.3]))
            for peer in peers:
                peer.start()
            if rng.random() < 0.2:
                network.cut.set()
                time.sleep(rng.uniform(0.2, 1.5))
                network.cut.clear()
                counted["cuts"] += 1
            network.slow_s = rng.choice([0.0, 0.0, 0.0, 0.15])
        network.slow_s = network.badness = 0.0
        finish(learner_folder, learner, workers)
        counted["kills"] = sum(p.kills for p in (learner, *workers))
        counted["kills_learner"] = learner.kills
        names = {"delivered twice": "delivered_twice", "delivered late": "delivered_late"}
        for what, number in network.counts.items():
            counted[names.get(what, f"network_{what.replace(' ', '_')}")] += number
    jumps = [path.stat().st_size for path in root.glob("*/clock_jumps")]
    counted["clock_jumps"] = sum(jumps)
    counted.update(check(learner_folder / "episodes", folders))
    return dict(counted)


def damage_tail(folder: Path, rng: random.Random) -> bool:
    """Sometimes leaves a torn record at the journal's end, as a power cut would."""
    journal = folder / "spool" / "faults" / "journal"
    if not journal.exists() or rng.random() < 0.5:
        return False
    with journal.open("ab") as file:
        file.write(rng.randbytes(rng.randint(1, 400)))
    return True


def full_disk(root: Path, which: str, seed: int) -> dict[str, int]:
    """The learner's, or the worker's, disk fills up; room is made; nothing is missing."""
    rng = random.Random(seed)
    disk = root / "disk"
    disk.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "hildaft-faults", str(disk)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        return {"full_disk_skipped": 1}
    try:
        learner_folder = disk / "learner" if which == "learner" else root / "learner"
        folder = disk / "arm" if which == "worker" else root / "arm"
        learner_folder.mkdir()
        port = free_port()
        learner = Peer(["learner", str(learner_folder), str(port)], root / "learner.log")
        worker = Peer(["worker", str(folder), str(port)], root / "arm.log")
        learner.start()
        worker.start()
        wait_for_steps(folder, 40)
        victim = learner if which == "learner" else worker
        assert victim.process is not None
        filler, end = disk / "filler", time.monotonic() + 180.0
        with filler.open("wb", buffering=0) as file:
            # Room that an episode leaves once it is delivered is taken too.
            while victim.process.poll() is None and time.monotonic() < end:
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * 4096)
                time.sleep(0.001)
        code = victim.wait(1)
        text = victim.log.read_text()
        assert code == 2, (code, text)
        assert "Traceback" not in text, text
        assert "free space" in text, text
        filler.unlink()
        time.sleep(rng.uniform(0.0, 0.5))
        victim.start()
        wait_for_steps(folder, 20)
        finish(learner_folder, learner, [worker])
        return {"full_disks": 1, **check(learner_folder / "episodes", [folder])}
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def damaged_checkpoints(root: Path, count: int, seed: int) -> dict[str, int]:
    """Flips a bit of the newest checkpoint, or cuts it: the one before it is read and said."""
    import torch

    from hildaft.algo.checkpoint import list_checkpoints, read_newest, write_checkpoint

    rng = random.Random(seed)
    for step in range(3):
        write_checkpoint(root, {"w": torch.full((1000,), float(step))}, {"n": step}, step=step)
    newest = list_checkpoints(root)[-1]
    fallen = 0
    for _ in range(count):
        path = newest / rng.choice(["state.safetensors", "meta.json"])
        whole = path.read_bytes()
        broken = bytearray(whole)
        if rng.random() < 0.5:
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        else:
            del broken[rng.randrange(len(broken)) :]
        path.write_bytes(broken)
        checkpoint = read_newest(root)
        # A flip inside JSON's white space changes nothing: then the newest is still whole.
        fallen += checkpoint.step == 1 and checkpoint.warning is not None
        assert float(checkpoint.tensors["w"][0]) == checkpoint.step
        path.write_bytes(whole)
    return {"damaged_checkpoints": count, "checkpoint_fallbacks": fallen}


def merge(parts: list[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=220)
    parser.add_argument("--longest-s", type=float, default=900.0)
    parser.add_argument("--malformed", type=int, default=12_000)
    parser.add_argument("--holds", type=int, default=20, help="of each of the five kinds")
    parser.add_argument("--checkpoints", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON; a page beside it with --page"
    )
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    from fault_fuzz import fuzz
    from fault_holds import holds

    folder = Path(tempfile.mkdtemp(prefix="hildaft-faults-"))
    started = time.monotonic()
    parts = [
        kills(folder / "kills", given.kills, given.seed, given.longest_s),
        full_disk(folder / "full-learner", "learner", given.seed),
        full_disk(folder / "full-worker", "worker", given.seed),
        damaged_checkpoints(folder / "checkpoints", given.checkpoints, given.seed),
        fuzz(folder / "fuzz", given.malformed, given.seed),
        holds(folder / "holds", given.holds, given.seed),
    ]
    figures = merge(parts)
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    document = {
        "study": "faults",
        "command": " ".join(["python", *sys.argv]),
        "commit": git.stdout.strip(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, NumPy {np.__version__}",
        "seed": given.seed,
        "wall_s": round(time.monotonic() - started, 1),
        **figures,
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))
    if given.page:
        from fault_page import write_page

        write_page(given.out)
    shutil.rmtree(folder)
    wrong = ("lost", "duplicated", "reordered", "torn_accepted", "malformed_accepted")
    raise SystemExit(any(figures.get(name, 0) for name in wrong))


if __name__ == "__main__":
    main()
