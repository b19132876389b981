"""What a command does with a run, a dataset or the bench once, and prints: evaluate, export, import, render."""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file

from hildaft.algo.checkpoint import read_newest
from hildaft.algo.policy import DualActorPolicy
from hildaft.algo.training import published_weights, require_encoders
from hildaft.arms import RealArmConfig
from hildaft.build import (
    PROPRIO_DIM,
    build_encoders,
    build_learner,
    build_policy,
    open_station,
    trained_on,
)
from hildaft.config import TASKS, RunConfig, read_config, with_environment
from hildaft.config_files import read_yaml, require_name
from hildaft.data.episodes import EpisodeStore
from hildaft.data.lerobot_export import ExportResult, Labels, export_dataset
from hildaft.data.replay import States
from hildaft.eval.evaluate import Talk, evaluate, evaluation_seed
from hildaft.eval.long_horizon import run_chain
from hildaft.eval.provenance import commit_of_code, today
from hildaft.eval.statistics import wilson_interval
from hildaft.eval.steering_figure import GAIN, SCENES, find_state, write_steering_figure
from hildaft.judging import judged
from hildaft.models.backbone import FrozenEncoders
from hildaft.robots.bolt_sim.chain import BoltChain
from hildaft.robots.bolt_sim.contact_sheet import record_frames, write_clip, write_contact_sheet
from hildaft.robots.bolt_sim.env import BoltEnv
from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.robots.gym_config import GymConfig
from hildaft.robots.safety import SafeRobot
from hildaft.runtime.dataset_import import DatasetMapping, ImportResult, import_dataset
from hildaft.runtime.transition_import import TransitionMapping, import_transitions
from hildaft.teleop.oracle import oracle_action
from hildaft.teleop.simulated_operator import SimulatedOperator
from hildaft.teleop.talk import PHRASES
from hildaft.types import ActionScale, HilDaftError

SPREAD_EPISODES = 12
"""Last episodes of a run whose states the spread over w is measured on."""


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


def evaluate_run(
    folder: Path,
    *,
    episodes: int,
    talk: Talk,
    talk_always: bool,
    robot: Literal["A", "B"] | None,
    seed: int,
    tasks: tuple[str, ...],
    as_json: bool,
) -> str:
    """Evaluates a run's newest weights, success seen by whom its config names; JSON with the outcomes, or a table.

    Raises:
        HilDaftError: no such run, no whole checkpoint, an unknown task, fewer than one episode, talking all
            the way without words, a bench variant for a run elsewhere, or a run that needs a person there.
    """
    config = read_config(folder / "config.yaml")
    _require_evaluable(config, folder, talk, robot, talk_always=talk_always)
    for task in tasks:
        require_name("tasks", task, config.tasks)
    encoders = build_encoders(config)
    policy, checkpoint = _trained_policy(config, folder, encoders)
    policy.begin(seed)
    station = open_station(config if robot is None else replace(config, robot=robot))
    try:
        told = replace(config.operator, tweaks=False, talk=talk, talk_always=talk_always)
        told = replace(told, step_limit=config.step_limit)
        result = evaluate(
            judged(SafeRobot(station.robot), config, encoders, None),
            policy,
            tasks or config.tasks,
            episodes,
            seed,
            # Silence needs nobody: not every environment has somebody who could talk.
            operator=None if talk == "none" else station.operator(told),
            talk=talk,
            step_limit=config.step_limit,
        )
    finally:
        station.close()
    if as_json:
        head = {"run": str(folder), "checkpoint": checkpoint, "seed": seed, **_made()}
        said = {"talk": talk, "talk_always": talk_always}
        return json.dumps({**head, **said, "tasks": result.to_json()}, indent=1)
    always = " all the way" if talk_always else ""
    lines = [f"{folder} ({checkpoint}), talk {talk}{always}, seed {seed}"]
    for task in result.tasks:
        interval = wilson_interval(task.successes, task.episodes)
        mean_length = sum(task.lengths) / task.episodes
        lines.append(
            f"  {task.task:<10} {task.successes:>3} of {task.episodes}"
            f"  ({100 * interval.low:.0f} to {100 * interval.high:.0f} %)  {mean_length:.1f} steps"
        )
    return "\n".join([*lines, f"  average    {100 * result.success_rate:.1f} %"])


def _require_evaluable(
    config: RunConfig, folder: Path, talk: Talk, robot: str | None, *, talk_always: bool
) -> None:
    """Says in a HilDaftError why this run cannot be evaluated this way."""
    environment = config.environment
    if talk_always and talk == "none":
        msg = "--talk-always with --talk none: say what, by --talk right, random or opposite"
        raise HilDaftError(msg)
    if robot is not None and environment is not None:
        msg = f"eval --robot {robot}: run {folder} is not on the bolt bench; leave --robot away"
        raise HilDaftError(msg)
    if (why := why_a_person(config)) is not None:
        msg = f"eval {folder}: {why}; `{go_on_with_person(folder)}` makes the evaluations that are left with one"
        raise HilDaftError(f"{msg}, `hildaft report {folder}` shows them")
    if talk != "none" and isinstance(environment, GymConfig) and not environment.operator:
        msg = (
            f"eval --talk {talk}: environment {environment.name} has no law that says when to talk; leave --talk away,"
            f" or name one as environment.operator in {folder / 'config.yaml'} (docs/gymnasium.md)"
        )
        raise HilDaftError(msg)


def why_a_person(config: RunConfig) -> str | None:
    """Why only somebody at the seat can evaluate a run; None where nobody has to be there."""
    environment = config.environment
    if isinstance(environment, RealArmConfig):
        return f"robot {environment.name} is a real arm, beside which a person has to sit"
    if config.judge.by == "person":
        return "judge.by='person', and nobody sits here whose keys could judge"
    return None


def go_on_with_person(folder: Path) -> str:
    """The command that goes on with a run, a person at the seat, and evaluates what is left to evaluate."""
    if (folder / "token").exists():
        # Of a learner: the person sits at a worker.
        return f"hildaft learner --out {folder} --resume"
    return f"hildaft train --out {folder} --resume --operator browser"


def _made() -> dict[str, str]:
    """Of a measurement: the weights may be older than the code that measures them."""
    return {"commit": commit_of_code(), "date": today()}


def _trained_policy(
    config: RunConfig, folder: Path, encoders: FrozenEncoders | None = None
) -> tuple[DualActorPolicy, str]:
    """A run's newest weights, ready to act, and the name of the checkpoint they are of."""
    checkpoint = read_newest(folder / "checkpoints")
    if checkpoint.warning:
        print(f"hildaft: {checkpoint.warning}", file=sys.stderr)
    encoders = encoders or build_encoders(config)
    policy = build_policy(config, encoders)
    require_encoders(checkpoint.tensors, trained_on(config, encoders))
    policy.load_weights(published_weights(checkpoint.tensors), checkpoint.step)
    return policy, checkpoint.path.name


def evaluate_chains(
    folder: Path, *, bolts: int, chains: int, talk: Talk, seed: int, as_json: bool
) -> str:
    """Runs chains of bolts with a run's newest weights; JSON text, every chain in it, or a table.

    Raises:
        HilDaftError: no such run, not one of the bolt bench's three tasks, no whole checkpoint.
    """
    config = read_config(folder / "config.yaml")
    if config.environment is not None or set(config.tasks) != set(TASKS):
        msg = f"run folder {folder}: trained on {', '.join(config.tasks)}; a chain needs {', '.join(TASKS)}"
        raise HilDaftError(msg)
    if not 1 <= bolts <= 4 or chains < 1:
        msg = f"--bolts {bolts} --chains {chains}: 1 to 4 bolts and at least 1 chain are allowed"
        raise HilDaftError(msg)
    policy, checkpoint = _trained_policy(config, folder)
    chain = BoltChain(config.robot, bolts)
    told = replace(config.operator, tweaks=False, talk=talk, step_limit=config.step_limit)
    operator = SimulatedOperator(chain.scene_state, chain.env.action_scale, told)
    try:
        seeds = [evaluation_seed(seed, "chain", number) for number in range(chains)]
        outcomes = [run_chain(chain, policy, operator, each) for each in seeds]
    finally:
        chain.close()
    if as_json:
        head = {"run": str(folder), "checkpoint": checkpoint, "seed": seed, "talk": talk, **_made()}
        listed = [outcome.to_json() for outcome in outcomes]
        return json.dumps({**head, "bolts": bolts, "chains": listed}, indent=1)
    lines = [f"{folder} ({checkpoint}), talk {talk}, seed {seed}"]
    for wanted in range(1, bolts + 1):
        done = sum(outcome.bolts_done >= wanted for outcome in outcomes)
        lines.append(f"  {wanted} {'bolt ' if wanted == 1 else 'bolts'}  {done:>3} of {chains}")
    broken = Counter((o.failed_task, o.reason) for o in outcomes if o.failed_task is not None)
    lines += [f"  {count:>3} x {task}: {reason}" for (task, reason), count in broken.most_common()]
    return "\n".join(lines)


def draw_commands(folder: Path, picture: Path, seed: int) -> Path:
    """Draws what each single-axis command makes of a run's action, in one state per task.

    Raises:
        HilDaftError: no such run, not on the bolt bench, a run without a refinement actor, or no name of a PNG.
    """
    if picture.suffix.lower() != ".png":
        msg = f"--out {picture}: a name that ends in .png is allowed"
        raise HilDaftError(msg)
    config = read_config(folder / "config.yaml")
    if config.environment is not None or not config.method.refinement_actor:
        msg = f"run folder {folder}: the picture needs the bolt bench and a refinement actor; name another run"
        raise HilDaftError(msg)
    policy, checkpoint = _trained_policy(config, folder)
    robot = BoltRobot(config.robot)
    told = replace(config.operator, tweaks=False, talk="right", step_limit=config.step_limit)
    operator = SimulatedOperator(robot.scene_state, robot.action_scale, told)
    try:
        states = [
            find_state(
                *(robot, policy, operator, task),
                [evaluation_seed(seed, task, number) for number in range(SCENES)],
            )
            for task in config.tasks
        ]
    finally:
        robot.close()
    title = f"{folder.name}, {checkpoint}: mean step under each command, arrows {GAIN:.0f} times as long; base axes"
    write_steering_figure(picture, states, title)
    return picture


def export_run(run: Path, folder: Path, *, as_video: bool) -> ExportResult:
    """Writes a run's episodes as a LeRobotDataset; raises HilDaftError."""
    config = read_config(run / "config.yaml")
    scale = ActionScale() if config.environment is None else config.environment.action_scale
    labels = Labels(instructions=config.instructions, phrases=PHRASES, action_scale=scale)
    return export_dataset(EpisodeStore(run / "episodes"), folder, labels, as_video=as_video)


ACTION_NAMES = ("dx.vel", "dy.vel", "dz.vel", "droll.vel", "dpitch.vel", "dyaw.vel", "gripper.pos")
"""Of an exported policy's action. LeRobot's rollout hands on nothing but positions and velocities."""


def export_policy(run: Path, folder: Path, image_sizes: Mapping[str, int]) -> list[Path]:
    """Writes a run's newest policy as the plugin `lerobot_policy_hildaft` reads it; the files written.

    Args:
        run: run folder.
        folder: must not exist.
        image_sizes: side in px of each camera's image, which the encoders bring to their own size.

    Raises:
        HilDaftError: no such run, no whole checkpoint, or the folder exists or cannot be written.
    """
    config = read_config(run / "config.yaml")
    checkpoint = read_newest(run / "checkpoints")
    if checkpoint.warning:
        print(f"hildaft: {checkpoint.warning}", file=sys.stderr)
    cameras = {
        f"observation.images.{name}": {"type": "VISUAL", "shape": [3, size, size]}
        for name, size in image_sizes.items()
    }
    state = {"observation.state": {"type": "STATE", "shape": [PROPRIO_DIM]}}
    policy = {
        "type": "hildaft",
        "input_features": {**cameras, **state},
        "output_features": {"action": {"type": "ACTION", "shape": [len(ACTION_NAMES)]}},
        "device": "cpu",
        "run_config": (run / "config.yaml").read_text(encoding="utf-8"),
        "action_feature_names": list(ACTION_NAMES),
    }
    device = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}
    before = [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        device,
    ]
    texts = {
        "config.json": policy,
        "policy_preprocessor.json": {"name": "policy_preprocessor", "steps": before},
        "policy_postprocessor.json": {"name": "policy_postprocessor", "steps": [device]},
    }
    try:
        folder.mkdir(parents=True)
        for name, content in texts.items():
            (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
        weights = {
            k: v.detach().cpu().contiguous()
            for k, v in published_weights(checkpoint.tensors).items()
        }
        save_file(weights, folder / "model.safetensors")
    except FileExistsError as error:
        msg = f"folder {folder} exists; name another with --out"
        raise HilDaftError(msg) from error
    except OSError as error:
        msg = f"folder {folder}: {error.strerror or error}; name another with --out"
        raise HilDaftError(msg) from error
    note = f"{config.preset} policy of {len(config.tasks)} tasks, {checkpoint.step} updates"
    print(note, file=sys.stderr)
    return [folder / name for name in (*texts, "model.safetensors")]


def import_episodes(
    dataset: Path, folder: Path, mapping: Path | None, environment: Path | None
) -> ImportResult:
    """Adds a LeRobotDataset's episodes, or converted transitions, to an episode folder; raises HilDaftError."""
    config = RunConfig() if environment is None else with_environment(RunConfig(), environment)
    advice = "docs/datasets.md says how to write one"

    def encoders() -> DualActorPolicy:
        return build_policy(config, build_encoders(config))

    if dataset.suffix in (".pkl", ".pickle"):
        msg = f"dataset {dataset}: a pickle can run any code; make it safe first: `hildaft convert-pickle {dataset}`"
        raise HilDaftError(msg)
    if dataset.suffix == ".safetensors":
        if mapping is None:
            msg = f"transitions {dataset}: say what they mean with --map FILE; examples/datasets/serl.yaml is one"
            raise HilDaftError(msg)
        given = read_yaml(TransitionMapping, mapping, advice)
        require_name("mapping.task", given.task, config.tasks)
        return import_transitions(dataset, EpisodeStore(folder), encoders(), given)
    meaning = None
    if mapping is not None:
        meaning = read_yaml(DatasetMapping, mapping, advice)
        for task in meaning.tasks.values():
            require_name("mapping.tasks", task, config.tasks)
    return import_dataset(dataset, EpisodeStore(folder), encoders(), config.tasks, meaning)


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
