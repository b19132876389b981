"""A Franka's robot server that fails in the middle of an episode: how soon it is said, and whether the arm holds.

Real processes: the server of the tests with an arm of arithmetic, our adapter, and the watch around it.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hildaft.arms import open_arm
from hildaft.config_files import read_arm
from hildaft.robots.safety import SafeRobot
from hildaft.robots.serl_http import SerlConfig
from hildaft.robots.watchdog import WatchedRobot
from hildaft.types import HilDaftError

SERVER = Path(__file__).parents[1] / "tests" / "robots" / "fake_serl_server.py"
EXAMPLE = Path(__file__).parents[1] / "examples" / "robots" / "franka_serl.yaml"
PERIOD_S = 0.1
AFTER_S = 0.5
"""How long the server's journal is watched for poses that come after the fault was said."""


class Server:
    """The fake robot server, a process of its own."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), "--gripper-s", "0.2", *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def control(self, route: str, payload: object = None) -> Any:  # noqa: ANN401 - JSON
        data = json.dumps(payload or {}).encode()
        with urllib.request.urlopen(self.url + route, data=data, timeout=5) as reply:
            return json.loads(reply.read())

    def poses_after(self, moment_s: float) -> int:
        journal = self.control("/_journal")
        return sum(route == "/pose" and at > moment_s for at, route, *_ in journal)

    def clears(self) -> int:
        return sum(route == "/clearerr" for _, route, *_ in self.control("/_journal"))

    def to_go_mm(self) -> float:
        """How far the pose that draws the arm is from where the arm is."""
        pose, drawn_to = self.control("/_arm")
        return 1e3 * float(np.linalg.norm(np.subtract(pose[:3], drawn_to[:3])))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@dataclass(frozen=True)
class Trial:
    """One fault at a random moment of an episode."""

    said_ms: float | None
    """From the step that met the fault to its error; none where nothing has to be said."""
    line: str
    to_go_mm: float | None
    """Of the arm when the fault was said; none where the server is gone."""
    poses_after: int | None
    clears: int | None


@dataclass(frozen=True)
class Row:
    """One kind of fault over all its trials."""

    fault: str
    trials: int
    said: int
    said_ms_max: float | None
    line: str
    to_go_mm_max: float | None
    poses_after: int | None
    clears: int | None


def arm_of(server: Server) -> SerlConfig:
    """The example's arm at this server, without its cameras."""
    raw = {**yaml.safe_load(EXAMPLE.read_text()), "url": server.url, "cameras": {}}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arm.yaml"
        file.write_text(yaml.safe_dump(raw))
        config = read_arm(file)
    assert isinstance(config, SerlConfig)
    return config


def action(rng: random.Random, jaws: float = -1.0) -> np.ndarray:
    return np.array([*(rng.uniform(-1, 1) for _ in range(6)), jaws], np.float32)


def meet(inject: Callable[[Server], None], rng: random.Random, jaws: float = -1.0) -> Trial:
    """An episode at 10 Hz whose server is made to fail after a few steps."""
    server = Server()
    try:
        robot = SafeRobot(open_arm(arm_of(server)))
        robot.reset("pick", rng.randrange(1000))
        for _ in range(rng.randint(2, 6)):
            robot.step(action(rng))
            time.sleep(rng.uniform(0.0, PERIOD_S))
        inject(server)
        line, begun, raised = "", time.monotonic(), None
        for _ in range(60):
            begun = time.monotonic()
            try:
                robot.step(action(rng, jaws))
            except HilDaftError as error:
                line, raised = str(error), time.monotonic()
                break
        if server.process.poll() is not None:
            return Trial(_ms(begun, raised), line, None, None, None)
        to_go_mm = server.to_go_mm()
        time.sleep(AFTER_S)
        after = server.poses_after(raised or time.monotonic())
        return Trial(_ms(begun, raised), line, to_go_mm, after, server.clears())
    finally:
        server.close()


def lose_worker(number: signal.Signals, rng: random.Random) -> Trial:
    """The process that acts is killed or frozen; the one that owns the arm holds it."""
    server = Server()
    worker = subprocess.Popen(
        [sys.executable, __file__, "--act-on", server.url], stdout=subprocess.PIPE, text=True
    )
    try:
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(rng.uniform(0.5, 0.8))
        begun = time.monotonic()
        worker.send_signal(number)
        # What was on its way to the server may still arrive; then the hold, then nothing.
        time.sleep(AFTER_S)
        sent = [at for at, route, *_ in server.control("/_journal") if route == "/pose"]
        to_go_mm, last = server.to_go_mm(), max(sent)
        time.sleep(AFTER_S)
        return Trial(
            _ms(begun, last),
            "nothing; the process that owns the arm holds it",
            to_go_mm,
            server.poses_after(last),
            server.clears(),
        )
    finally:
        worker.kill()
        worker.wait()
        server.close()


def act_on(url: str) -> None:
    """What `lose_worker` kills."""
    raw = {**yaml.safe_load(EXAMPLE.read_text()), "url": url, "cameras": {}}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arm.yaml"
        file.write_text(yaml.safe_dump(raw))
        robot = WatchedRobot(partial(open_arm, read_arm(file)))
    robot.reset("pick", 0)
    rng = random.Random(0)
    print("acting", flush=True)
    while True:
        robot.step(action(rng))
        time.sleep(PERIOD_S)


def _ms(begun: float, ended: float | None) -> float | None:
    return None if ended is None else 1e3 * (ended - begun)


def fail(route: str, kind: str) -> Callable[[Server], None]:
    return lambda server: server.control("/_fault", {f"/{route}": kind})


def turn(what: str, value: object) -> Callable[[Server], None]:
    return lambda server: server.control("/_fault", {what: value})


def kill(server: Server) -> None:
    server.process.kill()
    server.process.wait()


BROKEN = {
    "500": "answers 500",
    "hang": "hangs",
    "late": "answers 0.6 s late",
    "drip": "drips a byte every 50 ms",
    "partial": "cut JSON",
    "garbage": "no JSON",
    "closes": "closes the connection",
    "list": "a list",
    "missing": "`pose` missing",
    "nan": "NaN",
    "short": "two numbers",
    "unnormalised": "quaternion of length 0",
    "huge": "200 kB",
}
FAULTS: dict[str, Callable[[random.Random], Trial]] = {
    **{
        f"`/getstate` {text}": partial(meet, fail("getstate", kind))
        for kind, text in BROKEN.items()
    },
    "`/pose` answers 500": partial(meet, fail("pose", "500")),
    "`/pose` hangs": partial(meet, fail("pose", "hang")),
    "`/close_gripper` answers 500": partial(meet, fail("close_gripper", "500"), jaws=1.0),
    "measured pose jumps 10 cm": partial(meet, turn("jump", [0.1, 0.0, 0.0])),
    "reflex stop, 60 steps": partial(meet, turn("reflex", value=True)),
    "server killed": partial(meet, kill),
    "our worker killed": partial(lose_worker, signal.SIGKILL),
    "our worker frozen": partial(lose_worker, signal.SIGSTOP),
}


def summarise(fault: str, trials: list[Trial]) -> Row:
    said = [trial.said_ms for trial in trials if trial.said_ms is not None]
    to_go = [trial.to_go_mm for trial in trials if trial.to_go_mm is not None]
    after = [trial.poses_after for trial in trials if trial.poses_after is not None]
    clears = [trial.clears for trial in trials if trial.clears is not None]
    line = (
        trials[0]
        .line.replace("failed (", "failed: ")
        .split("; the arm holds")[0]
        .split("; look at")[0]
    )
    # The port is another one at every start.
    line = re.sub(r"http://[\d.:]+", "", line)
    return Row(
        fault=fault,
        trials=len(trials),
        said=len(said),
        said_ms_max=round(max(said), 1) if said else None,
        line=line or "nothing: the arm is commanded on, within its leash",
        to_go_mm_max=round(max(to_go), 2) if to_go else None,
        poses_after=sum(after) if after else None,
        clears=sum(clears) if clears else None,
    )


def write_page(document: dict[str, Any], path: Path) -> None:
    """Writes the table as a page beside the JSON."""
    lines = [
        "# Faults of a Franka's robot server",
        "",
        "The adapter for HIL-SERL's robot server (`examples/robots/franka_serl.yaml`, each request within"
        f" {document['timeout_s']} s) against a",
        "server process with its routes and an arm of arithmetic. No real arm was there. Each fault comes after 2 to 6",
        "steps at 10 Hz, at a random moment. A read that fails is tried once more; then the arm is told to hold.",
        "",
        f"`{document['command']}`  ",
        f"seed {document['seed']}, commit {document['commit']}, {document['date']}, {document['machine']}",
        "",
        "| fault | said | latest (ms) | to go (mm) | poses after | errors cleared | what was said |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in document["faults"]:
        shown = {name: "-" if value is None else value for name, value in row.items()}
        lines.append(
            "| {fault} | {said} of {trials} | {said_ms_max} | {to_go_mm_max} | {poses_after} | {clears} |"
            " {line} |".format(**shown)
        )
    lines += [
        "",
        "*Latest*: from the step that met the fault to its error, or from the worker's end to the hold. *To go*:",
        "between the arm and the pose that draws it when the fault is said; a step is 15 mm per axis. *Poses after*:",
        "sent within 0.5 s after that. At a reflex stop the arm does not follow; the commanded pose stays on its leash",
        "(30 mm and one step), and the stop is not cleared. With the server killed the arm's own controller keeps the",
        "last pose.",
        "",
    ]
    path.write_text("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="words of the faults to bring about")
    parser.add_argument("--out", type=Path, help="JSON; the page is written beside it")
    parser.add_argument("--act-on", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.act_on:
        act_on(given.act_on)
    rng = random.Random(given.seed)
    chosen = {
        fault: bring
        for fault, bring in FAULTS.items()
        if not given.only or any(word in fault for word in given.only)
    }
    before, rows = os.getloadavg()[0], list[Row]()
    for fault, bring in chosen.items():
        rows.append(summarise(fault, [bring(rng) for _ in range(given.trials)]))
        print(rows[-1], flush=True)
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    document = {
        "study": "serl_faults",
        "command": " ".join(["python", *sys.argv]),
        "commit": commit,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, load {before:.1f} to {os.getloadavg()[0]:.1f}",
        "seed": given.seed,
        "timeout_s": yaml.safe_load(EXAMPLE.read_text()).get("timeout_s", SerlConfig.timeout_s),
        "faults": [asdict(row) for row in rows],
    }
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n")
        write_page(document, given.out.with_suffix(".md"))
    silent = [row.fault for row in rows if row.said < row.trials and "reflex" not in row.fault]
    moved = [row.fault for row in rows if row.poses_after or row.clears]
    if silent or moved:
        print(f"not said: {silent}; moved after the fault or cleared: {moved}")
        sys.exit(1)


if __name__ == "__main__":
    main()
