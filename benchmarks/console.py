"""How long it takes from a key in the browser to the robot: `python benchmarks/console.py --out FILE`.

The real page runs in headless Chromium against the bolt bench at 10 Hz, with a policy that stands still beside it.
A key goes down at a random time; the latency ends where the robot is handed the first action that holds the key's
motion. Both times are read from this machine's clock. The part until the seat has heard of the key is ours to shorten;
the rest is the wait for the control loop's next tick, which reads the newest state of the hand right before it acts.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from playwright.sync_api import Page, sync_playwright

from hildaft.console.charts import Charts
from hildaft.console.serving import ServingConfig, serve
from hildaft.console.sessions import NoEncoders
from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.runtime.interaction import Pacing, run_episode
from hildaft.seating import SeatOptions, bench_sight, seat
from hildaft.types import (
    CONTROL_HZ,
    Action,
    Encoded,
    Observation,
    RefinementCommand,
    StepResult,
)

LISTEN = """window.downs = [];
document.addEventListener("keydown", event => {
  if (event.code === "KeyW" && !event.repeat) downs.push(performance.timeOrigin + event.timeStamp);
}, true);"""


class StillPolicy:
    """Moves nothing, so that every motion is the hand's."""

    version = 0
    encoder_hash = ""

    def encode(self, observation: Observation, task: str) -> Encoded:
        return NoEncoders().encode(observation, task)

    def act(self, encoded: Encoded, command: RefinementCommand) -> Action:
        action = np.zeros(7, np.float32)
        action[6] = -1.0
        return action


def robot_loop(ready: threading.Event, stop: threading.Event, shared: dict[str, Any]) -> None:
    bolt = BoltRobot("A")
    try:
        options = SeatOptions(operator="browser")
        seated = seat(bolt, bench_sight(bolt), "policy", options, stop)
        step, drive = seated.robot.step, seated.station.operator.drive

        def timed(action: Action) -> StepResult:
            shared["steps"].append((time.time(), bool(action[0] > 0)))
            return step(action)

        def heard(motion: Float[np.ndarray, "6"], closes: bool | None = None) -> None:
            shared["heard"].append(time.time())
            drive(motion, closes)

        seated.robot.step = timed
        seated.station.operator.drive = heard
        shared["station"] = seated.station
        ready.set()
        seed = 0
        while not stop.is_set():
            run_episode(
                seated.robot,
                StillPolicy(),
                seated.station.operator,
                "pick",
                seed,
                "eval",
                pacing=Pacing(CONTROL_HZ),
                keep_images=False,
                keys=seated.station.operator,
            )
            seed += 1
    finally:
        bolt.close()


DRAWN = """() => [performance.now() / 1000, ...["head", "wrist"].map(
  camera => +(document.getElementById(camera).dataset.drawn ?? 0))]"""


def press_keys(page: Page, presses: int, rng: np.random.Generator) -> list[float]:
    for _ in range(presses):
        page.wait_for_timeout(int(rng.uniform(700, 900)))
        page.keyboard.down("w")
        page.wait_for_timeout(250)
        page.keyboard.up("w")
    return page.evaluate("downs")


def hold(page: Page, seconds: float) -> dict[str, float]:
    """Pictures per second of a robot that is held."""
    page.keyboard.press("p")
    page.wait_for_selector("body[data-control=hold]")
    before = page.evaluate(DRAWN)
    page.wait_for_timeout(1e3 * seconds)
    return pictures_per_s(before, page.evaluate(DRAWN))


def pictures_per_s(before: list[float], after: list[float]) -> dict[str, float]:
    """Drawn on the page, counted over the whole time."""
    spent_s, head, wrist = np.subtract(after, before).tolist()
    return {"head": round(head / spent_s, 2), "wrist": round(wrist / spent_s, 2)}


def latencies_ms(
    downs_ms: list[float], steps: list[tuple[float, bool]]
) -> Float[np.ndarray, "k 2"]:
    """Per press: time to the first step that moves, and steps begun in between that did not."""
    result = []
    for down_ms in downs_ms:
        after = [(at, moves) for at, moves in steps if at > down_ms / 1e3]
        first = next((i for i, (_, moves) in enumerate(after) if moves), None)
        if first is not None:
            result.append((1e3 * after[first][0] - down_ms, first))
    return np.array(result)


def deliveries_ms(downs_ms: list[float], heard_s: list[float]) -> Float[np.ndarray, " k"]:
    """Per press: time until the seat has heard of it."""
    firsts = [next((at for at in heard_s if 1e3 * at > down), np.nan) for down in downs_ms]
    return 1e3 * np.array(firsts) - np.array(downs_ms)


def percentiles(values: Float[np.ndarray, " k"]) -> dict[str, float]:
    return {f"p{q}": round(float(np.nanpercentile(values, q)), 1) for q in (50, 95, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presses", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    ready, stop = threading.Event(), threading.Event()
    shared: dict[str, Any] = {"steps": [], "heard": []}
    loop = threading.Thread(target=robot_loop, args=(ready, stop, shared))
    loop.start()
    ready.wait()
    try:
        with (
            serve({"A": shared["station"]}, Charts(), ServingConfig(port=0)) as address,
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.add_init_script(LISTEN)
            page.goto(address)
            page.wait_for_selector("body.seated")
            rng = np.random.default_rng(given.seed)
            before, steps = page.evaluate(DRAWN), len(shared["steps"])
            downs = press_keys(page, given.presses, rng)
            after = page.evaluate(DRAWN)
            steps = len(shared["steps"]) - steps
            held = hold(page, 10.0)
            browser.close()
    finally:
        shared["station"].operator.mark("stop")
        loop.join()
    measured = latencies_ms(downs, shared["steps"])
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    summary = {
        "command": f"python benchmarks/console.py --presses {given.presses} --seed {given.seed}",
        "commit": git.stdout.strip(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{os.cpu_count()} cores {platform.machine()}, load {os.getloadavg()[0]:.1f}",
        "presses": len(downs),
        "answered": len(measured),
        "key_to_seat_ms": percentiles(deliveries_ms(downs, shared["heard"])),
        "key_to_action_ms": percentiles(measured[:, 0]),
        "period_ms": round(1e3 / CONTROL_HZ, 1),
        "steps_without_the_key": int(measured[:, 1].sum()),
        "steps_per_s": round(steps / (after[0] - before[0]), 2),
        "pictures_per_s": pictures_per_s(before, after),
        "pictures_per_s_held": held,
    }
    text = json.dumps(summary, indent=1)
    print(text)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
