"""Our online update against LeRobot's SAC update, which runs in a Python of its own and makes one update when told to.

`python benchmarks/against_lerobot.py --lerobot-python PATH` prints JSON; PATH is the interpreter of an environment
where `lerobot` is installed. LeRobot runs as it is shipped, and once more with our launcher's allocator setting,
which helps it too.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any, Final

import torch

from common import TASKS, Figure, interleave, launched, ratio, spread, write_out
from hildaft.algo.dual_actor import HILDAFT
from learner import Updates
from synthetic import filled_replay

SCRIPT: Final = Path(__file__).with_name("lerobot_sac.py")
OURS: Final = 10
"""One of their updates lasts as long as a hundred of ours: the median of this many stands for those."""


class Peer:
    """LeRobot in a process; ends with the context."""

    def __init__(self, python: Path, rows: int, *, stock_allocator: bool) -> None:
        environment = launched(stock_allocator=stock_allocator)
        self.process = subprocess.Popen(
            [str(python), str(SCRIPT), str(rows)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        )
        assert self.process.stdout is not None
        about = self.process.stdout.readline()
        if not about:
            raise OSError("the interpreter cannot run LeRobot's SAC, see above")
        self.about: dict[str, Any] = json.loads(about)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()

    def update(self) -> float:
        """CPU seconds of one update."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("update\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lerobot-python", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.lerobot_python is None:
        reason = "LeRobot: name the interpreter of its environment with --lerobot-python"
        write_out({}, {"skipped": reason})
        return
    updates = Updates(HILDAFT, filled_replay(TASKS), TASKS)
    rows = updates.rows * len(TASKS)
    times: dict[str, list[float]] = {"ours": [], "stock": [], "kept": []}
    with contextlib.ExitStack() as stack:
        peers = {
            name: stack.enter_context(
                Peer(arguments.lerobot_python, rows, stock_allocator=name == "stock")
            )
            for name in ("stock", "kept")
        }
        about = peers["stock"].about
        for _ in range(arguments.rounds):
            own = interleave({"ours": updates.online}, OURS, discard=1)["ours"]
            times["ours"].append(statistics.median(own))
            for name, peer in peers.items():
                times[name].append(peer.update())
    against = "LeRobot's SAC update, default encoder, two 128x128 cameras, same number of rows"
    figures: dict[str, Figure] = {
        "learner.online_vs_lerobot": ratio(times["stock"], times["ours"], f"{against}, as shipped"),
        "learner.online_vs_lerobot_our_allocator": ratio(
            times["kept"], times["ours"], f"{against}, with our allocator setting"
        ),
    }
    seconds = {name: spread(taken, "s", "").value for name, taken in times.items()}
    write_out(figures, {"lerobot": about, "seconds": seconds})


if __name__ == "__main__":
    main()
