"""Measures the bolt bench: cost per step, the oracle and the operator, tolerances, pictures.

python benchmarks/sim.py cost --out docs/results/sim_cost.json
python benchmarks/sim.py success --out docs/results/sim_success.json
python benchmarks/sim.py tolerance --out docs/results/sim_tolerance.json
python benchmarks/sim.py pictures --out FOLDER
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hildaft.robots.bolt_sim.chain import BoltChain
from hildaft.robots.bolt_sim.contact_sheet import record_frames, write_clip, write_contact_sheet
from hildaft.robots.bolt_sim.env import BoltEnv
from hildaft.robots.bolt_sim.tasks import TASKS
from hildaft.teleop.oracle import oracle_action
from hildaft.teleop.simulated_operator import SimulatedOperator
from hildaft.types import Action, SceneState

LEVELS_MM = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0)
AXES = ("across the rail", "along the rail", "up")
PERCEIVED = {"upright": ("bolt", "spot"), "pick": ("bolt",), "assemble": ("slot",)}


def time_steps(index: int, steps: int) -> list[float]:
    """Thread CPU milliseconds of every step, both cameras rendered, tasks in turn."""
    env = BoltEnv("A")
    times: list[float] = []
    seed = 1000 * index
    while len(times) < steps:
        env.reset(seed=seed, options={"task": TASKS[seed % len(TASKS)]})
        seed += 1
        over = False
        while not over:
            action = oracle_action(env.scene_state(), env.action_scale)
            begin = time.thread_time()
            _, _, terminated, truncated, _ = env.step(action)
            times.append(1000 * (time.thread_time() - begin))
            over = terminated or truncated
    env.close()
    return times


def measure_cost(steps: int) -> dict[str, Any]:
    """CPU time per step in one process and in two at once."""
    result: dict[str, Any] = {}
    for processes in (1, 2):
        begin = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            lists = pool.starmap(time_steps, [(i, steps) for i in range(processes)])
        times = np.concatenate([np.asarray(values) for values in lists])
        result[f"processes_{processes}"] = {
            "steps": len(times),
            "cpu_ms_mean": round(float(times.mean()), 2),
            **{
                f"cpu_ms_p{p}": round(float(np.percentile(times, p)), 2)
                for p in (10, 50, 90, 95, 99)
            },
            "steps_per_cpu_s": round(1000 / float(times.mean()), 1),
            "wall_s": round(time.perf_counter() - begin, 1),
        }
    return result


def run_episode(env: BoltEnv, task: str, seed: int, act: Callable[[], Action]) -> tuple[bool, int]:
    """One episode without cameras' cost in the way; success and length."""
    env.reset(seed=seed, options={"task": task})
    for step in range(1, 51):
        _, _, terminated, truncated, _ = env.step(act())
        if terminated or truncated:
            return terminated, step
    return False, 50


def blind(env: BoltEnv) -> BoltEnv:
    """Leaves rendering out: nothing here looks at images."""
    env.scene.render = lambda *_: {}  # type: ignore[method-assign]
    return env


def tell(outcomes: list[tuple[bool, int]]) -> dict[str, Any]:
    """Successes of episodes, and the lengths of those that succeeded."""
    lengths = [steps for success, steps in outcomes if success]
    summary: dict[str, Any] = {"episodes": len(outcomes), "successes": len(lengths)}
    if lengths:
        summary["mean_steps"] = round(float(np.mean(lengths)), 1)
        summary["p95_steps"] = round(float(np.percentile(lengths, 95)), 1)
    return summary


def skilled(env: BoltEnv) -> Callable[[], Action]:
    """The noise-free oracle in an environment."""
    return lambda: oracle_action(env.scene_state(), env.action_scale)


def aimless(seed: int) -> Callable[[], Action]:
    """Uniform random actions."""
    rng = np.random.default_rng(seed)
    return lambda: rng.uniform(-1, 1, 7).astype(np.float32)


def misled(env: BoltEnv, what: str, axis: int, error_m: float) -> Callable[[], Action]:
    """The oracle with one thing seen off by a constant."""
    return lambda: oracle_action(
        misperceive(env.scene_state(), what, axis, error_m), env.action_scale
    )


def measure_success(episodes: int, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Oracle, demonstrating operator and random actions, per robot and task; chains on A."""
    result: dict[str, Any] = {}
    for robot in ("A", "B"):
        env = blind(BoltEnv(robot))
        operator = SimulatedOperator(env.scene_state, env.action_scale)
        for task in TASKS:
            oracle = [run_episode(env, task, seed, skilled(env)) for seed in range(episodes // 4)]
            demos: list[tuple[bool, int]] = []
            for seed in range(episodes):
                operator.begin(task, seed)
                demos.append(run_episode(env, task, seed, operator.demonstrate))
            chance = [run_episode(env, task, seed, aimless(seed)) for seed in range(50)]
            result[f"{robot}/{task}"] = {
                "oracle": tell(oracle),
                "operator": tell(demos),
                "random": tell(chance),
            }
            print(robot, task, result[f"{robot}/{task}"], flush=True)
            keep(result)
    for bolts in (1, 2, 3, 4):
        result[f"chain-{bolts}"] = measure_chain(bolts, episodes // 8)
        print("chain", bolts, result[f"chain-{bolts}"], flush=True)
        keep(result)
    return result


def measure_chain(bolts: int, episodes: int) -> dict[str, Any]:
    """The oracle on chains of several bolts, robot A."""
    chain = BoltChain("A", bolts)
    blind(chain.env)
    chain.env.scene.render = lambda *_: {"wrist": None, "head": None}  # type: ignore[method-assign, return-value, dict-item]

    def act(_: object, __: str) -> Action:
        return oracle_action(chain.scene_state(), chain.env.action_scale)

    runs = [chain.run(act, seed) for seed in range(episodes)]
    good = [run for run in runs if run.success]
    return {
        "episodes": episodes,
        "successes": len(good),
        "mean_task_steps": round(float(np.mean([run.task_steps for run in good])), 1)
        if good
        else None,
        "mean_transit_steps": round(float(np.mean([run.transit_steps for run in good])), 1)
        if good
        else None,
    }


def misperceive(state: SceneState, what: str, axis: int, error_m: float) -> SceneState:
    """The state with one thing seen off by a constant, in the rail's axes."""
    shift = state.slot_rotation[:, axis] * error_m
    return replace(state, **{f"{what}_position_m": getattr(state, f"{what}_position_m") + shift})


def measure_tolerance(episodes: int, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Success of the oracle under constant perception errors, both signs in turn, robot A."""
    env = blind(BoltEnv("A"))
    result: dict[str, Any] = {}
    for task, things in PERCEIVED.items():
        for what in things:
            for axis, name in enumerate(AXES):
                if what == "spot" and name == "up":
                    continue
                rows: dict[str, int] = {}
                for level in LEVELS_MM:
                    wins = 0
                    for seed in range(episodes):
                        error = level * 1e-3 * (1 if seed % 2 else -1)
                        wins += run_episode(env, task, seed, misled(env, what, axis, error))[0]
                    rows[f"{level:g}"] = wins
                    if wins < episodes / 2:
                        break
                below = next((float(k) for k, v in rows.items() if v < episodes / 2), None)
                key = f"{task}/{what}/{name}"
                result[key] = {"episodes": episodes, "successes": rows, "below_half_mm": below}
                print(key, result[key], flush=True)
                keep(result)
    return result


def draw_pictures(folder: Path) -> None:
    """Contact sheets of both robots and a clip per task, the operator demonstrating."""
    folder.mkdir(parents=True, exist_ok=True)
    for robot in ("A", "B"):
        env = BoltEnv(robot, render_mode="rgb_array")
        scale = env.action_scale
        episodes = {
            task: record_frames(
                env, lambda state, scale=scale: oracle_action(state, scale), task, 3
            )
            for task in TASKS
        }
        write_contact_sheet(folder / f"contact_sheet_{robot}.png", episodes, columns=5)
        if robot == "A":
            for task, frames in episodes.items():
                write_clip(folder / f"{task}.gif", frames)
        env.close()


def write_tables(folder: Path) -> str:
    """The measured tables as Markdown, from the JSON files in the folder; a missing file is left out."""
    files = {name: folder / f"sim_{name}.json" for name in ("cost", "success", "tolerance")}
    found = {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}
    lines = ["# The bolt bench, measured", "", "Written by `python benchmarks/sim.py report`.", ""]
    if "success" in found:
        lines += [
            "| robot/task | oracle | operator (demonstrating) | random actions |",
            "|---|---|---|---|",
        ]
        lines += ["| chain (robot A) | oracle | task steps | transit steps |", "|---|---|---|---|"]
        split = len(lines) - 2
        for key, value in found["success"]["measured"].items():
            if key.startswith("chain"):
                score = f"{value['successes']}/{value['episodes']}"
                steps = (value["mean_task_steps"], value["mean_transit_steps"])
                lines.append(f"| {key} | {score} | {steps[0]} | {steps[1]} |")
                continue
            cells = " | ".join(cell(value[who]) for who in ("oracle", "operator", "random"))
            lines.insert(split, f"| {key} | {cells} |")
            split += 1
        lines.insert(split, "")
        lines.append("")
    if "tolerance" in found:
        lines += [
            "Successes of the oracle when it sees one thing off by a constant (mm, both signs):",
            "",
        ]
        lines += [
            "| task / seen off / along | episodes | successes by error | below half at (mm) |",
            "|---|---|---|---|",
        ]
        for key, value in found["tolerance"]["measured"].items():
            rows = ", ".join(f"{mm}: {wins}" for mm, wins in value["successes"].items())
            below = value["below_half_mm"] if value["below_half_mm"] is not None else "not reached"
            lines.append(f"| {key} | {value['episodes']} | {rows} | {below} |")
        lines.append("")
    if "cost" in found:
        lines += ["CPU time of one step, physics and both cameras (ms per core):", ""]
        lines += [
            "| processes | steps | p10 | p50 | p90 | p99 | steps per CPU second |",
            "|---|---|---|---|---|---|---|",
        ]
        for key, value in found["cost"]["measured"].items():
            times = " | ".join(str(value[f"cpu_ms_p{p}"]) for p in (10, 50, 90, 99))
            lines.append(f"| {key[-1]} | {value['steps']} | {times} | {value['steps_per_cpu_s']} |")
        lines.append("")
    return "\n".join(lines)


def cell(summary: dict[str, Any]) -> str:
    """Successes, episodes and mean length of a table cell."""
    score = f"{summary['successes']}/{summary['episodes']}"
    return f"{score}, {summary['mean_steps']} steps" if "mean_steps" in summary else score


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("cost", "success", "tolerance", "report", "pictures"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--episodes", type=int, default=0, help="0: 200 for success, 25 for tolerance"
    )
    parser.add_argument("--steps", type=int, default=600, help="steps per process for cost")
    options = parser.parse_args()
    if options.what == "pictures":
        draw_pictures(options.out)
        return
    if options.what == "report":
        (options.out / "sim.md").write_text(write_tables(options.out))
        return
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    head = {"study": f"sim-{options.what}", "command": " ".join(sys.argv), "machine": machine}
    options.out.parent.mkdir(parents=True, exist_ok=True)

    def keep(measured: dict[str, Any]) -> None:
        """Writes what is measured so far: a run that is cut short still counts."""
        options.out.write_text(json.dumps({**head, "measured": measured}, indent=1) + "\n")

    if options.what == "cost":
        keep(measure_cost(options.steps))
    elif options.what == "success":
        measure_success(options.episodes or 200, keep)
    else:
        measure_tolerance(options.episodes or 25, keep)


if __name__ == "__main__":
    main()
