"""From a config to the objects it names: the only place that chooses."""

import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import torch

from hildaft.algo.actors import Actors
from hildaft.algo.checkpoint import read_newest
from hildaft.algo.dual_actor import DualActor
from hildaft.algo.policy import DualActorPolicy
from hildaft.algo.training import Learner, published_weights
from hildaft.config import INSTRUCTIONS, TASKS, RunConfig, read_config, require_name, write_config
from hildaft.data.replay import Dims, Replay
from hildaft.eval.evaluate import Talk, evaluate
from hildaft.eval.local_bench import LocalBench
from hildaft.eval.run_data import write_provenance
from hildaft.eval.statistics import wilson_interval
from hildaft.models.backbone import FrozenEncoders
from hildaft.models.encoders import embed_phrases, load_image_encoder
from hildaft.models.octo import load_octo_tiny
from hildaft.robots.bolt_sim.contact_sheet import record_frames, write_clip, write_contact_sheet
from hildaft.robots.bolt_sim.env import BoltEnv
from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.robots.safety import SafeRobot
from hildaft.runtime.progress import ProgressView
from hildaft.runtime.session import Plan, Session
from hildaft.teleop.oracle import oracle_action
from hildaft.teleop.simulated_operator import SimulatedOperator
from hildaft.teleop.talk import PHRASES
from hildaft.types import HilDaftError

PROPRIO_DIM = 2
"""Jaw opening and whether the jaws are commanded closed."""


@contextmanager
def open_run(
    config: RunConfig, folder: Path, *, resume: bool, stop: threading.Event
) -> Generator[Session]:
    """A session ready to run in `folder`, with its robot and its terminal view; both are closed at the end.

    Raises:
        HilDaftError: the folder exists and `resume` was not asked for, or the reverse.
    """
    config = resolve_config(config, folder, resume=resume)
    encoders = build_encoders(config)
    learner = build_learner(config, encoders)
    bolt_robot = BoltRobot(config.robot)
    try:
        # The first image loads OpenGL: where that is missing, nothing has been written yet.
        bolt_robot.env.scene.render()
        if not resume:
            claim_folder(config, folder)
        robot = SafeRobot(bolt_robot)
        operator_config = replace(
            config.operator,
            tweaks=True,
            talk="right" if config.method.talk_in_rollouts else "none",
        )
        operator = SimulatedOperator(bolt_robot.scene_state, robot.action_scale, operator_config)
        with ProgressView(config.tasks) as view:
            bench = LocalBench(
                folder,
                robot,
                build_policy(config, encoders),
                operator,
                view,
                config.evaluation,
                preset=config.preset,
                seed=config.seed,
                tasks=config.tasks,
                real_time=config.real_time,
            )
            yield Session(folder, plan_of(config), learner, bench, view, stop)
    finally:
        bolt_robot.close()


def plan_of(config: RunConfig) -> Plan:
    """What a session of this config does."""
    return Plan(
        tasks=config.tasks,
        seed=config.seed,
        real_time=config.real_time,
        demonstrations=config.training.demonstrations,
        warmup_updates=config.training.warmup_updates,
        online_transitions=config.training.online_transitions,
        episodes=config.evaluation.episodes,
        episodes_before=config.evaluation.episodes_before,
        episodes_during=config.evaluation.episodes_during,
        evaluate_every=config.evaluation.every,
    )


def resolve_config(config: RunConfig, folder: Path, *, resume: bool) -> RunConfig:
    """The folder's own config on a resume; otherwise the given one, for a folder that must not exist yet."""
    if resume:
        return read_config(folder / "config.yaml")
    if folder.exists():
        msg = f"run folder {folder} exists; go on with it by --resume, or name another with --out"
        raise HilDaftError(msg)
    return config


def claim_folder(config: RunConfig, folder: Path) -> None:
    """Makes a run's folder with its config and where it comes from."""
    try:
        folder.mkdir(parents=True)
        write_config(config, folder / "config.yaml")
        _record_provenance(folder)
    except OSError as error:
        msg = f"run folder {folder}: {error.strerror or error}; name a folder that can be written with --out"
        raise HilDaftError(msg) from error


def _record_provenance(folder: Path) -> None:
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    write_provenance(
        folder,
        command=["hildaft", *sys.argv[1:]],
        commit=git.stdout.strip() or "not a checkout",
        date=datetime.now(timezone.utc).date().isoformat(),
        machine=f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()},"
        f" torch {torch.__version__}",
    )


def build_encoders(config: RunConfig) -> FrozenEncoders:
    """The frozen networks, with the tasks' instructions embedded."""
    match config.backbone:
        case "octo-tiny":
            backbone = load_octo_tiny()
    instructions = {task: INSTRUCTIONS[task] for task in config.tasks}
    return FrozenEncoders(backbone, load_image_encoder(), instructions)


def build_learner(config: RunConfig, encoders: FrozenEncoders) -> Learner:
    """Networks, replay buffer and counters of a new run."""
    dims = _dims(encoders)
    replay = Replay(
        config.tasks,
        dims,
        discount=config.method.discount,
        to_rollouts=config.method.to_rollouts,
    )
    dual_actor = DualActor(
        config.method, config.tasks, dims, embed_phrases(PHRASES), seed=config.seed
    )
    return Learner(config.training, dual_actor, replay, len(config.tasks), seed=config.seed)


def build_policy(config: RunConfig, encoders: FrozenEncoders) -> DualActorPolicy:
    """The acting side: its own copy of the actors, so that training never changes a step under way."""
    method = config.method
    table = embed_phrases(PHRASES)
    actors = Actors(method.primary, method.refinement, _dims(encoders), table, seed=config.seed)
    return DualActorPolicy(encoders, actors, seed=config.seed, bypass_null=method.null_bypass)


def _dims(encoders: FrozenEncoders) -> Dims:
    return Dims(h=encoders.h_dim, features=encoders.feature_dim, proprio=PROPRIO_DIM)


def evaluate_run(
    folder: Path,
    *,
    episodes: int,
    talk: Talk,
    robot: Literal["A", "B"] | None,
    seed: int,
    tasks: tuple[str, ...],
    as_json: bool,
) -> str:
    """Evaluates a run's newest weights; JSON text with per-episode outcomes, or a table.

    Raises:
        HilDaftError: no such run, no whole checkpoint, an unknown task or fewer than one episode.
    """
    config = read_config(folder / "config.yaml")
    for task in tasks:
        require_name("tasks", task, config.tasks)
    checkpoint = read_newest(folder / "checkpoints")
    if checkpoint.warning:
        print(f"hildaft: {checkpoint.warning}", file=sys.stderr)
    encoders = build_encoders(config)
    policy = build_policy(config, encoders)
    policy.load_weights(published_weights(checkpoint.tensors), checkpoint.step)
    policy.begin(seed)
    bolt_robot = BoltRobot(robot or config.robot)
    try:
        operator_config = replace(config.operator, tweaks=False, talk=talk)
        operator = SimulatedOperator(
            bolt_robot.scene_state, bolt_robot.action_scale, operator_config
        )
        result = evaluate(
            SafeRobot(bolt_robot),
            policy,
            tasks or config.tasks,
            episodes,
            seed,
            operator=None if talk == "none" else operator,
            talk=talk,
        )
    finally:
        bolt_robot.close()
    if as_json:
        head = {"run": str(folder), "checkpoint": checkpoint.path.name, "seed": seed, "talk": talk}
        return json.dumps({**head, "tasks": result.to_json()}, indent=1)
    lines = [f"{folder} ({checkpoint.path.name}), talk {talk}, seed {seed}"]
    for task in result.tasks:
        interval = wilson_interval(task.successes, task.episodes)
        mean_length = sum(task.lengths) / task.episodes
        lines.append(
            f"  {task.task:<10} {task.successes:>3} of {task.episodes}"
            f"  ({100 * interval.low:.0f} to {100 * interval.high:.0f} %)  {mean_length:.1f} steps"
        )
    return "\n".join([*lines, f"  average    {100 * result.success_rate:.1f} %"])


def render_bench(folder: Path, robot: Literal["A", "B"], seed: int) -> list[Path]:
    """Renders each task, solved by the oracle, as one contact sheet and a clip per task."""
    env = BoltEnv(robot)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scale = env.action_scale
        episodes = {
            task: record_frames(env, lambda state: oracle_action(state, scale), task, seed)
            for task in TASKS
        }
        sheet = folder / f"contact-sheet-{robot}.png"
        write_contact_sheet(sheet, episodes, columns=6)
        clips = [folder / f"{task}-{robot}.gif" for task in episodes]
        for clip, frames in zip(clips, episodes.values(), strict=True):
            write_clip(clip, frames)
    except OSError as error:
        msg = f"output folder {folder}: {error.strerror or error}; name another with --out"
        raise HilDaftError(msg) from error
    finally:
        env.close()
    return [sheet, *clips]
