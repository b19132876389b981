"""From a config to the objects it names: the only place that chooses."""

import contextlib
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import torch

from hildaft.algo.actors import Actors
from hildaft.algo.checkpoint import read_newest
from hildaft.algo.dual_actor import DualActor
from hildaft.algo.policy import DualActorPolicy
from hildaft.algo.training import Learner, published_weights, require_encoders
from hildaft.config import (
    TASKS,
    RunConfig,
    read_config,
    read_yaml,
    require_name,
    with_environment,
    write_config,
)
from hildaft.console.charts import Charts, ConsoleView
from hildaft.console.serving import serve
from hildaft.data.episodes import EpisodeStore
from hildaft.data.lerobot_export import ExportResult, Labels, export_dataset
from hildaft.data.replay import Dims, Replay, States
from hildaft.eval.evaluate import Talk, evaluate
from hildaft.eval.local_bench import BenchView, LocalBench
from hildaft.eval.run_data import write_provenance
from hildaft.eval.statistics import wilson_interval
from hildaft.models.backbone import FrozenEncoders, content_hash
from hildaft.models.selection import embed_commands, load_backbone, load_image_encoder
from hildaft.robots.bolt_sim.contact_sheet import record_frames, write_clip, write_contact_sheet
from hildaft.robots.bolt_sim.env import BoltEnv
from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.robots.gym_check import check_environment
from hildaft.robots.gym_config import GymConfig
from hildaft.robots.gym_env import GymRobot
from hildaft.robots.safety import SafeRobot
from hildaft.robots.serl_client import SerlClient
from hildaft.robots.serl_http import SerlConfig, SerlRobot
from hildaft.runtime.dataset_import import DatasetMapping, ImportResult, import_dataset
from hildaft.runtime.progress import ProgressView
from hildaft.runtime.session import Plan, Session
from hildaft.seating import ConsoleOptions, seat
from hildaft.teleop.browser import BrowserOperator
from hildaft.teleop.law import load_law
from hildaft.teleop.oracle import oracle_action
from hildaft.teleop.scripted_operator import ScriptedOperator
from hildaft.teleop.simulated_operator import OperatorConfig, SimulatedOperator
from hildaft.teleop.talk import PHRASES
from hildaft.types import ActionScale, HilDaftError, Robot

SPREAD_EPISODES = 12
"""Last episodes of a run whose states the spread over w is measured on."""
PROPRIO_DIM = 2
"""Jaw opening and whether the jaws are commanded closed."""


@contextmanager
def open_run(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool,
    stop: threading.Event,
    console: ConsoleOptions | None = None,
) -> Generator[Session]:
    """A session ready to run in `folder`, with its robot and its view; both are closed at the end.

    With `console` a person may sit beside the robot: the run then goes by the clock, and the simulated operator
    stands in while no hand is on the robot.

    Raises:
        HilDaftError: the folder exists and `resume` was not asked for, or the reverse.
    """
    config = _resolve_config(config, folder, resume=resume)
    if console is not None:
        config = replace(config, real_time=True)
    encoders = build_encoders(config)
    learner = build_learner(config, encoders)
    station = open_station(config)
    try:
        # The first image loads OpenGL: where that is missing, nothing has been written yet.
        station.check()
        if not resume:
            claim_folder(config, folder)
        with contextlib.ExitStack() as stack:
            terminal = stack.enter_context(ProgressView(config.tasks))
            operator = _build_operator(config, station)
            if console is None:
                robot = SafeRobot(station.robot)
                bench = _build_bench(config, folder, robot, encoders, operator, terminal)
                yield Session(folder, _plan(config), learner, bench, terminal, stop)
                return
            seated = seat(_require_bolt_robot(station), "policy", console.seat, stop, operator)
            charts = Charts()
            charts.load(folder)
            view = ConsoleView(terminal, charts)
            stations = {seated.station.name: seated.station}
            address = stack.enter_context(serve(stations, charts, console.serving))
            view.note(f"console: {address}")
            person = seated.station.operator
            bench = _build_bench(config, folder, seated.robot, encoders, operator, view, person)
            yield Session(folder, _plan(config), learner, bench, view, stop)
    finally:
        station.close()


@dataclass(frozen=True, kw_only=True)
class Station:
    """A robot, the person beside it, and what opening and closing them takes."""

    robot: Robot
    operator: Callable[[OperatorConfig], SimulatedOperator | ScriptedOperator]
    check: Callable[[], object]
    """Finds out whether it can be used; raises HilDaftError where not."""
    close: Callable[[], None]


def open_station(config: RunConfig) -> Station:
    """The bolt bench, or the Gymnasium environment of the config.

    Raises:
        HilDaftError: the environment's operator cannot be loaded.
    """
    match config.environment:
        case None:
            bolt = BoltRobot(config.robot)
            return Station(
                robot=bolt,
                operator=lambda given: SimulatedOperator(
                    bolt.scene_state, bolt.action_scale, given
                ),
                check=bolt.env.scene.render,
                close=bolt.close,
            )
        case GymConfig() as environment:
            gym_robot = GymRobot(environment)
            law = load_law(environment.operator)
            scale = environment.action_scale
            return Station(
                robot=gym_robot,
                operator=lambda given: ScriptedOperator(
                    lambda: law(gym_robot.env, gym_robot.raw_observation, scale), scale, given
                ),
                check=lambda: report_environment(environment),
                close=gym_robot.close,
            )


def report_environment(config: GymConfig) -> None:
    """Tries the environment out and prints what it finds; raises HilDaftError at what makes it unusable."""
    findings = check_environment(config)
    for finding in findings:
        print(f"  {finding.level:<4}  {finding.text}", file=sys.stderr)
    for finding in findings:
        if finding.level == "fail":
            raise HilDaftError(finding.text)


def _require_bolt_robot(station: Station) -> BoltRobot:
    if isinstance(station.robot, BoltRobot):
        return station.robot
    msg = "console=True: the bolt bench alone has a seat; leave --console or --env away"
    raise HilDaftError(msg)


def _build_operator(config: RunConfig, station: Station) -> SimulatedOperator | ScriptedOperator:
    return station.operator(
        replace(
            config.operator,
            tweaks=True,
            talk="right" if config.method.talk_in_rollouts else "none",
            step_limit=config.step_limit,
        )
    )


def _build_bench(
    config: RunConfig,
    folder: Path,
    robot: Robot,
    encoders: FrozenEncoders,
    operator: SimulatedOperator | ScriptedOperator,
    view: BenchView,
    person: BrowserOperator | None = None,
) -> LocalBench:
    return LocalBench(
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
        seat=person,
        step_limit=config.step_limit,
    )


def _plan(config: RunConfig) -> Plan:
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


def _resolve_config(config: RunConfig, folder: Path, *, resume: bool) -> RunConfig:
    if resume:
        return read_config(folder / "config.yaml")
    if folder.exists():
        msg = f"run folder {folder} exists; go on with it by --resume, or name another with --out"
        raise HilDaftError(msg)
    return config


def claim_folder(config: RunConfig, folder: Path) -> None:
    """Makes a run folder with its config and provenance; raises HilDaftError where it cannot be written."""
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
    backbone = load_backbone(config.backbone, config.encoders)
    return FrozenEncoders(backbone, load_image_encoder(config.encoders), config.instructions)


def build_learner(config: RunConfig, encoders: FrozenEncoders) -> Learner:
    """Networks, replay buffer and counters of a new run."""
    dims = _dims(encoders)
    replay = Replay(
        config.tasks,
        dims,
        discount=config.method.discount,
        to_rollouts=config.method.to_rollouts,
        encoder_hash=encoders.hash,
    )
    table = embed_commands(PHRASES, config.encoders)
    dual_actor = DualActor(config.method, config.tasks, dims, table, seed=config.seed)
    return Learner(
        config.training,
        dual_actor,
        replay,
        len(config.tasks),
        seed=config.seed,
        encoder_hash=_trained_on(config, encoders),
    )


def _trained_on(config: RunConfig, encoders: FrozenEncoders) -> str:
    """What a checkpoint was trained on: the frozen encoders and the table of commands."""
    table = embed_commands(PHRASES, config.encoders)
    return content_hash({"encoders": encoders.hash}, {"commands": table})


def measure_run_spread(config: RunConfig, folder: Path, encoders: FrozenEncoders) -> float:
    """Standard deviation (mm) of a trained run's primary action over w, on the states of its last episodes.

    Raises:
        HilDaftError: no whole checkpoint, none of its episodes, or trained on other encoders than these.
    """
    learner = build_learner(config, encoders)
    learner.load_state(read_newest(folder / "checkpoints").tensors)
    store = EpisodeStore(folder / "episodes")
    episodes = [store.read(index) for index in store.indices[-SPREAD_EPISODES:]]
    if not episodes:
        msg = f"run folder {folder}: it holds no episodes to measure on; name another with --run"
        raise HilDaftError(msg)
    states = States.of(episodes, learner.dual_actor.device)
    return learner.dual_actor.diagnostics(states)["spread_mm"]


def build_policy(config: RunConfig, encoders: FrozenEncoders) -> DualActorPolicy:
    """The acting side: its own copy of the actors, so that training never changes a step under way."""
    method = config.method
    table = embed_commands(PHRASES, config.encoders)
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
    require_encoders(checkpoint.tensors, _trained_on(config, encoders))
    policy.load_weights(published_weights(checkpoint.tensors), checkpoint.step)
    policy.begin(seed)
    station = open_station(config if robot is None else replace(config, robot=robot))
    try:
        operator = station.operator(
            replace(config.operator, tweaks=False, talk=talk, step_limit=config.step_limit)
        )
        result = evaluate(
            SafeRobot(station.robot),
            policy,
            tasks or config.tasks,
            episodes,
            seed,
            operator=None if talk == "none" else operator,
            talk=talk,
            step_limit=config.step_limit,
        )
    finally:
        station.close()
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


def export_run(run: Path, folder: Path) -> ExportResult:
    """Writes a run's episodes as a LeRobotDataset; raises HilDaftError."""
    config = read_config(run / "config.yaml")
    scale = ActionScale() if config.environment is None else config.environment.action_scale
    labels = Labels(instructions=config.instructions, phrases=PHRASES, action_scale=scale)
    return export_dataset(EpisodeStore(run / "episodes"), folder, labels)


def import_episodes(
    dataset: Path, folder: Path, mapping: Path | None, environment: Path | None
) -> ImportResult:
    """Adds a LeRobotDataset's episodes to an episode folder; raises HilDaftError."""
    config = RunConfig() if environment is None else with_environment(RunConfig(), environment)
    meaning = None
    if mapping is not None:
        meaning = read_yaml(DatasetMapping, mapping, "docs/datasets.md says how to write one")
        for task in meaning.tasks.values():
            require_name("mapping.tasks", task, config.tasks)
    encoders = build_policy(config, build_encoders(config))
    return import_dataset(dataset, EpisodeStore(folder), encoders, config.tasks, meaning)


def open_serl(file: Path, sink: Callable[[str], None] | None = None) -> SerlRobot:
    """The arm of a YAML file, without cameras; with a sink nothing that moves is sent. Raises HilDaftError."""
    config = read_yaml(SerlConfig, file, "examples/robots/franka_serl.yaml is one to copy")
    client = SerlClient(config.url, config.timeout_s, sink)
    return SerlRobot(config, client, {}, lambda: "go on")


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
