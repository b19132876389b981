"""From a config to the objects it names: the only place that chooses."""

import contextlib
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from hildaft.algo.actors import Actors
from hildaft.algo.crew import Crew
from hildaft.algo.dual_actor import DualActor
from hildaft.algo.policy import DualActorPolicy
from hildaft.algo.training import Learner
from hildaft.arms import RealArmConfig, open_arm
from hildaft.baselines.dsrl import Dsrl
from hildaft.baselines.noise_actor import NoiseActor, SteeredActors
from hildaft.config import RunConfig, read_config, write_config
from hildaft.console.charts import Charts, ConsoleView
from hildaft.console.serving import serve
from hildaft.console.station import Station as Seat
from hildaft.data.replay import Dims, Replay
from hildaft.eval.local_bench import BenchView, LocalBench
from hildaft.eval.provenance import record_provenance
from hildaft.judging import judged, queue_of
from hildaft.lerobot_bridge.config import LeRobotConfig
from hildaft.models.backbone import FrozenEncoders, content_hash
from hildaft.models.selection import embed_commands, load_backbone, load_image_encoder
from hildaft.robots.bolt_arm import BoltArmConfig
from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.robots.gym_config import GymConfig
from hildaft.robots.gym_env import GymRobot
from hildaft.robots.safety import SafeRobot
from hildaft.robots.serl_http import SerlConfig
from hildaft.robots.watchdog import WatchedRobot
from hildaft.runtime.channel import InProcessChannel
from hildaft.runtime.demonstrations import take_demonstrations
from hildaft.runtime.encoding import encode_episode
from hildaft.runtime.environment_report import report_environment
from hildaft.runtime.progress import ProgressView
from hildaft.runtime.session import Plan, Session
from hildaft.runtime.sole_use import sole_use
from hildaft.runtime.training_run import TrainingRun
from hildaft.seating import (
    SeatOptions,
    Sight,
    bench_sight,
    environment_sight,
    open_device,
    scene_guides,
    seat,
)
from hildaft.teleop.browser import BrowserOperator
from hildaft.teleop.law import load_law
from hildaft.teleop.person import OperatorConfig
from hildaft.teleop.scripted_operator import ScriptedOperator
from hildaft.teleop.simulated_operator import SimulatedOperator
from hildaft.teleop.talk import PHRASES
from hildaft.types import HilDaftError, Robot

PROPRIO_DIM = 2
"""Jaw opening and whether the jaws are commanded closed."""


@contextmanager
def open_run(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool,
    stop: threading.Event,
    seating: SeatOptions | None = None,
    demonstrations: Path | None = None,
    corrections: Path | None = None,
) -> Generator[Session]:
    """A session ready to run in `folder`, with its robot and its view; both are closed at the end.

    With `seating` a person may sit beside the robot: the run then goes by the clock. They demonstrate and correct
    themselves, or the simulated operator does and stands in while no hand is on the robot. With `demonstrations` a new
    run starts from those of another run, or of `hildaft record`; with `corrections` its online stage does.

    Raises:
        HilDaftError: the demonstrations do not fit, the folder exists and `resume` was not asked for, or the reverse;
            another process trains in it; the person's device is missing.
    """
    with contextlib.ExitStack() as stack:
        if resume:
            stack.enter_context(use_run(folder))
        config = resolve_config(config, folder, resume=resume)
        if seating is not None or isinstance(config.environment, RealArmConfig):
            config = replace(config, real_time=True)
        encoders = build_encoders(config)
        learner = build_learner(config, encoders)
        station = open_station(config)
        stack.callback(station.close)
        # The first image loads OpenGL: where that is missing, nothing has been written yet.
        station.check()
        by_hand = seating is not None and seating.has_person
        operator = None if by_hand else build_operator(config, station)
        robot, seated = SafeRobot(station.robot), None
        if seating is not None:
            device = stack.enter_context(open_device(seating))
            seated = seat(station.robot, station.sight, "policy", seating, stop, operator, device)
        person = None if seated is None else seated.station.operator
        robot = judged(seated.robot if seated else robot, config, encoders, person)
        queue = queue_of(config, folder, encoders)
        if not resume:
            given = (demonstrations, corrections)
            fill = human_data_from(given, config, folder, station.robot.name, encoders)
            claim_folder(config, folder, fill)
            stack.enter_context(use_run(folder))
        terminal = stack.enter_context(ProgressView(config.tasks))
        view: BenchView = terminal
        if seating is not None and seated is not None:
            view = _open_console(stack, seated.station, seating, folder, terminal)
        run = TrainingRun(folder, learner, view, stop, queue)
        channel = InProcessChannel(run.store)
        bench = _build_bench(config, folder, robot, encoders, operator, channel, view, person)
        yield Session(run, plan_of(config), channel, bench, view, stop)


def _open_console(
    stack: contextlib.ExitStack,
    station: Seat,
    seating: SeatOptions,
    folder: Path,
    terminal: ProgressView,
) -> ConsoleView:
    charts = Charts()
    charts.load(folder)
    view = ConsoleView(terminal, charts)
    address = stack.enter_context(serve({station.name: station}, charts, seating.serving))
    view.note(f"console: {address}")
    return view


def human_data_from(
    given: tuple[Path | None, Path | None],
    config: RunConfig,
    folder: Path,
    robot: str,
    encoders: FrozenEncoders,
) -> Callable[[], None]:
    """What puts given demonstrations, and corrections, into a new folder of `robot`'s run; nothing where none are."""
    source, corrections = given

    def fill() -> None:
        if source is not None:
            take_demonstrations(
                source,
                folder,
                tasks=config.tasks,
                wanted=config.training.demonstrations,
                robot=robot,
                encoder_hash=encoders.hash,
                encode=lambda episode: encode_episode(episode, encoders),
                corrections=corrections,
                room=config.training.online_transitions,
            )

    return fill


@dataclass(frozen=True, kw_only=True)
class Station:
    """A robot, the person beside it, and what opening and closing them takes."""

    robot: Robot
    sight: Sight
    """What a person in front of it is shown."""
    operator: Callable[[OperatorConfig], SimulatedOperator | ScriptedOperator]
    """The one who stands in for a person; raises HilDaftError where nobody says how."""
    check: Callable[[], object]
    """Finds out whether it can be used; raises HilDaftError where not."""
    close: Callable[[], None]


def open_station(config: RunConfig) -> Station:
    """The bolt bench, or the Gymnasium environment or real arm of the config.

    Raises:
        HilDaftError: the environment's operator cannot be loaded, or its frame is mirrored.
    """
    match config.environment:
        case None:
            bolt = BoltRobot(config.robot)
            return Station(
                robot=bolt,
                sight=bench_sight(bolt),
                operator=lambda given: SimulatedOperator(
                    bolt.scene_state, bolt.action_scale, given
                ),
                check=bolt.env.scene.render,
                close=bolt.close,
            )
        case GymConfig() as environment:
            gym_robot = GymRobot(environment)
            scale = environment.action_scale

            def build(given: OperatorConfig) -> ScriptedOperator:
                law = load_law(environment.operator)
                return ScriptedOperator(
                    lambda: law(gym_robot.env, gym_robot.raw_observation, scale), scale, given
                )

            return Station(
                robot=gym_robot,
                sight=environment_sight(environment),
                operator=build,
                check=lambda: report_environment(environment),
                close=gym_robot.close,
            )
        case SerlConfig() | LeRobotConfig() as arm:
            # In a process of its own: held within 200 ms, whatever becomes of this one.
            watched = WatchedRobot(partial(open_arm, arm))
            return Station(
                robot=watched,
                sight=environment_sight(arm),
                operator=lambda _: require_person(arm.name),
                check=lambda: None,
                close=watched.close,
            )
        case BoltArmConfig() as arm:
            simulated = WatchedRobot(partial(open_arm, arm))
            return Station(
                robot=simulated,
                sight=replace(environment_sight(arm), guides=scene_guides(simulated)),
                operator=lambda given: SimulatedOperator(
                    simulated.scene_state, simulated.action_scale, given
                ),
                check=simulated.look,
                close=simulated.close,
            )


def require_person(arm: str) -> NoReturn:
    """Says in a HilDaftError that a real arm needs somebody beside it."""
    msg = f"robot {arm}: nobody simulates a person beside a real arm; name the device in your hand with --operator"
    raise HilDaftError(msg)


def build_operator(config: RunConfig, station: Station) -> SimulatedOperator | ScriptedOperator:
    """The one who demonstrates and corrects in a person's place; raises HilDaftError where nobody says how."""
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
    operator: SimulatedOperator | ScriptedOperator | None,
    channel: InProcessChannel,
    view: BenchView,
    person: BrowserOperator | None,
) -> LocalBench:
    return LocalBench(
        folder,
        robot,
        build_policy(config, encoders),
        operator,
        channel,
        view,
        preset=config.preset,
        seed=config.seed,
        tasks=config.tasks,
        real_time=config.real_time,
        seat=person,
        step_limit=config.step_limit,
    )


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


def use_run(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keeps a second process from training in a run folder; raises HilDaftError where this would be it."""
    is_run = (folder / "config.yaml").exists()
    # What is none is for `resolve_config` to name, and left as it is.
    return sole_use(folder, "run folder", "process") if is_run else contextlib.nullcontext()


def claim_folder(config: RunConfig, folder: Path, fill: Callable[[], None] = lambda: None) -> None:
    """Makes a run folder with its config and provenance; raises HilDaftError where it cannot be written.

    `fill` brings in what the run starts from; before that has worked there is no config, and nothing to resume.
    """
    try:
        folder.mkdir(parents=True)
        fill()
        write_config(config, folder / "config.yaml")
        record_provenance(folder)
    except OSError as error:
        msg = f"run folder {folder}: {error.strerror or error}; name a folder that can be written with --out"
        raise HilDaftError(msg) from error
    except HilDaftError:
        # What the run was to start from does not fit: the name is free again.
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise


def build_encoders(config: RunConfig) -> FrozenEncoders:
    """The frozen networks, with the tasks' instructions embedded."""
    backbone = load_backbone(config.backbone, config.encoders)
    return FrozenEncoders(backbone, load_image_encoder(config.encoders), config.instructions)


def build_learner(config: RunConfig, encoders: FrozenEncoders, crew: Crew | None = None) -> Learner:
    """Networks, replay buffer and counters of a new run; with a crew, this process's.

    Raises:
        HilDaftError: the method is not one that several processes can share.
    """
    if crew is not None and crew.size > 1 and config.dsrl.variant != "off":
        msg = f"dsrl.variant={config.dsrl.variant!r}: DSRL trains in one process; start without torchrun"
        raise HilDaftError(msg)
    dims, tasks = _dims(encoders), config.tasks
    names = ("all",) if config.pool_tasks else tasks
    replay = Replay(
        names,
        dims,
        discount=config.method.discount,
        capacity=32_768 * len(tasks) // len(names),
        to_rollouts=config.method.to_rollouts,
        encoder_hash=encoders.hash,
        pooled=config.pool_tasks,
    )
    table = embed_commands(PHRASES, config.encoders)
    agent = DualActor(config.method, names, dims, table, seed=config.seed, crew=crew)
    return Learner(
        config.training,
        agent if config.dsrl.variant == "off" else Dsrl(config.dsrl, agent, dims, config.seed),
        replay,
        seed=config.seed,
        encoder_hash=trained_on(config, encoders),
        crew=crew,
    )


def trained_on(config: RunConfig, encoders: FrozenEncoders) -> str:
    """What a checkpoint was trained on: the frozen encoders and the table of commands."""
    table = embed_commands(PHRASES, config.encoders)
    return content_hash({"encoders": encoders.hash}, {"commands": table})


def build_policy(config: RunConfig, encoders: FrozenEncoders) -> DualActorPolicy:
    """The acting side: its own copy of the actors, so that training never changes a step under way."""
    method, dims = config.method, _dims(encoders)
    table = embed_commands(PHRASES, config.encoders)
    actors = Actors(method.primary, method.refinement, dims, table, seed=config.seed)
    if config.dsrl.variant != "off":
        actors = SteeredActors(
            actors, NoiseActor(config.dsrl.hidden, config.dsrl.noise_bound, dims)
        )
    return DualActorPolicy(
        encoders,
        actors,
        seed=config.seed,
        bypass_null=method.null_bypass,
        listens=method.refinement_actor,
    )


def _dims(encoders: FrozenEncoders) -> Dims:
    return Dims(h=encoders.h_dim, features=encoders.feature_dim, proprio=PROPRIO_DIM)
