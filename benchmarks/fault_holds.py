"""How soon a robot is told to hold: worker killed, also in a reset, or frozen; policy frozen; camera cut."""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

ARM = Path(__file__).parents[1] / "tests" / "robots"
sys.path.insert(0, str(ARM))


def holds(root: Path, each: int, seed: int) -> dict[str, float]:
    """Milliseconds from the fault to the hold, at random moments of the 10 Hz loop; moves after it in a reset."""
    from watched_arm import RESETTING_WORKER, WORKER, read_notes

    rng = random.Random(seed)
    measured: list[float] = []
    moves_after = 0
    for kind in ("kill", "freeze", "policy", "camera", "reset"):
        for repeat in range(each):
            folder = root / f"{kind}{repeat}"
            folder.mkdir(parents=True)
            notes, script = folder / "notes", folder / "worker.py"
            # The policy that freezes does so between two steps, like any other that never returns.
            frozen = f"        while Path({str(folder / 'frozen')!r}).exists(): pass\n"
            stepping = WORKER.rstrip() + "\n" + frozen
            script.write_text(RESETTING_WORKER if kind == "reset" else stepping)
            worker = subprocess.Popen(
                [sys.executable, str(script), str(notes), str(ARM)], stdout=subprocess.PIPE
            )
            assert worker.stdout is not None
            worker.stdout.readline()
            time.sleep(0.5 + rng.uniform(0.0, 0.1))
            at = time.monotonic()
            match kind:
                case "kill" | "reset":
                    os.kill(worker.pid, signal.SIGKILL)
                case "freeze":
                    os.kill(worker.pid, signal.SIGSTOP)
                case "policy":
                    (folder / "frozen").touch()
                case _:
                    (folder / "camera_cut").touch()
            held: list[float] = []
            while not held and time.monotonic() < at + 5.0:
                time.sleep(0.01)
                # A frozen policy or camera shows at the next step: from that on the robot is without command.
                found = read_notes(notes)
                held = [moment for what, moment in found if what == "hold" and moment >= at]
            last = max(moment for what, moment in found if what in ("step", "move"))
            since = max(at, last) if kind in ("policy", "camera") else at
            measured.append(1e3 * (held[0] - since) if held else float("inf"))
            worker.kill()
            worker.wait()
            if kind == "reset":
                # The robot's process has the same output: nothing moves any more once it is closed.
                worker.stdout.read()
                found = read_notes(notes)
                moves_after += sum(w == "move" and m > held[0] for w, m in found if held)
            worker.stdout.close()
    return {
        "holds": len(measured),
        "holds_in_reset": each,
        "moves_after_hold": moves_after,
        "hold_ms_max": round(max(measured), 1),
        "hold_ms_median": round(statistics.median(measured), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        figures = holds(Path(folder), given.each, given.seed)
    document = {
        "study": "holds",
        "command": " ".join(["python", *sys.argv]),
        "commit": git.stdout.strip(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, load {before:.1f} to {os.getloadavg()[0]:.1f}",
        "seed": given.seed,
        **figures,
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
