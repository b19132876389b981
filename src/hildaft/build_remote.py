"""From a config to a learner that serves workers, and from a learner's config to a worker."""

import contextlib
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from hildaft.algo.crew import Crew, Order
from hildaft.arms import ArmConfig, RealArmConfig, open_arm
from hildaft.build import (
    PROPRIO_DIM,
    build_encoders,
    build_learner,
    build_policy,
    claim_folder,
    plan_of,
    require_person,
    resolve_config,
    use_run,
)
from hildaft.config import RunConfig, config_text, read_config
from hildaft.config_files import require_name
from hildaft.console.charts import Charts
from hildaft.console.serving import serve
from hildaft.console.station import Station
from hildaft.data.episodes import EpisodeStore, write_new
from hildaft.eval.remote_bench import RemoteBench
from hildaft.judging import judged, queue_of
from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.robots.gym_config import GymConfig
from hildaft.robots.judged import JudgeConfig
from hildaft.robots.safety import SafeRobot
from hildaft.robots.watchdog import WatchedRobot
from hildaft.runtime.interaction import Pacing
from hildaft.runtime.learning import RemoteSession
from hildaft.runtime.link.client import LearnerAwayError, LearnerClient, WorkerFacts, WorkerLink
from hildaft.runtime.link.credentials import ClientTls, ServerTls, make_token, require_secure
from hildaft.runtime.link.intake import Intake, Terms
from hildaft.runtime.link.roster import Roster
from hildaft.runtime.link.server import LinkServer, Progress, WeightShelf
from hildaft.runtime.link.spool import Spool
from hildaft.runtime.link.wire import is_name
from hildaft.runtime.precedence import yield_to_robots
from hildaft.runtime.progress import ProgressView
from hildaft.runtime.rig import Companion
from hildaft.runtime.session import scene_seed
from hildaft.runtime.training_run import TrainingRun
from hildaft.runtime.worker import Worker, wait_for
from hildaft.seating import SeatOptions, Sight, bench_sight, environment_sight, open_device, seat
from hildaft.teleop.device import Device
from hildaft.teleop.simulated_operator import SimulatedOperator
from hildaft.types import CONTROL_HZ, ActionScale, HilDaftError, Robot

LEAVE_S = 60.0
"""How long a finished learner waits for its workers to deliver what they still have."""


@contextmanager
def open_learner(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool,
    listen: str,
    tls: ServerTls | None,
    stop: threading.Event,
    crew: Crew,
    evaluate: bool,
) -> Generator[tuple[RemoteSession, LinkServer, ProgressView]]:
    """A learner that serves workers in `folder`, ready to run; with a crew, its first process.

    Without `evaluate` the workers' robots train only, and somebody else evaluates.

    Raises:
        HilDaftError: the folder exists and `resume` was not asked for, or the reverse; another process uses it; the
            address cannot be used.
    """
    require_secure(listen, tls)
    with contextlib.ExitStack() as stack:
        if resume:
            stack.enter_context(use_run(folder))
        config = resolve_config(config, folder, resume=resume)
        crew.tell(Order.CONFIG, config_text(config).encode)
        encoders = build_encoders(config)
        learner = build_learner(config, encoders, crew)
        queue = queue_of(config, folder, encoders)
        if not resume:
            claim_folder(config, folder)
            stack.enter_context(use_run(folder))
        if config.real_time:
            # Before any thread is started, so that all of them do.
            yield_to_robots()
        view = stack.enter_context(ProgressView(config.tasks))
        run = TrainingRun(folder, learner, view, stop, queue)
        widths = (encoders.h_dim, encoders.feature_dim, PROPRIO_DIM)
        intake = _open_intake(config, folder, run, encoders.hash, widths)
        for path in intake.repeated:
            view.note(f"episode file {path} repeats an earlier one and is not counted")
        session, server = _serve(
            config, folder, run, intake, view, listen, tls, stop, evaluate=evaluate
        )
        stack.enter_context(server)
        host, name = listen.rpartition(":")[0], intake.terms.run
        view.note(f"run {name}: listening on {host}:{server.port}")
        yield session, server, view
        _let_workers_leave(server.roster, stop)


def follow_learner(crew: Crew) -> None:
    """What the other processes of a learner do until the first is done: they serve nobody and write nothing.

    Raises:
        HilDaftError: another process is gone.
    """
    order, payload = crew.hear()
    if order is not Order.CONFIG:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_bytes(payload)
        config = read_config(path)
    build_learner(config, build_encoders(config), crew).follow()


def _open_intake(
    config: RunConfig,
    folder: Path,
    run: TrainingRun,
    encoder_hash: str,
    widths: tuple[int, int, int],
) -> Intake:
    terms = Terms(
        run=_run_name(folder),
        tasks=config.tasks,
        encoder_hash=encoder_hash,
        action_scale=config.environment.action_scale if config.environment else ActionScale(),
        widths=widths,
    )
    return Intake(run.store, EpisodeStore(folder / "evaluations" / "episodes"), terms)


def _serve(
    config: RunConfig,
    folder: Path,
    run: TrainingRun,
    intake: Intake,
    view: ProgressView,
    listen: str,
    tls: ServerTls | None,
    stop: threading.Event,
    *,
    evaluate: bool,
) -> tuple[RemoteSession, LinkServer]:
    """The session, and the server through which workers reach it."""
    plan = plan_of(config)

    def seed_of(kind: str, task: int, index: int) -> int:
        return scene_seed(config.seed, kind, task, index)

    roster = Roster(intake, plan.demonstrations, seed_of)
    progress = Progress(wanted_transitions=plan.online_transitions)
    shelf = WeightShelf()
    server = LinkServer(
        listen,
        make_token(folder / "token"),
        tls,
        config=(folder / "config.yaml").read_text(encoding="utf-8"),
        intake=intake,
        roster=roster,
        shelf=shelf,
        progress=progress,
    )
    bench = RemoteBench(
        folder,
        intake,
        roster,
        shelf,
        view,
        stop,
        preset=config.preset,
        seed=config.seed,
        step_limit=config.step_limit,
    )
    evaluator = bench if evaluate else None
    return RemoteSession(run, plan, intake, roster, shelf, progress, evaluator, view, stop), server


def _let_workers_leave(roster: Roster, stop: threading.Event) -> None:
    end = time.monotonic() + LEAVE_S
    while roster.stage == "finished" and time.monotonic() < end and not stop.is_set():
        busy = [s for s in roster.statuses() if s.state not in ("away", "gone")]
        if not any(s.state != "finished" or s.pending_episodes for s in busy):
            return
        stop.wait(0.2)


def _run_name(folder: Path) -> str:
    """The run's own name, made once: folders may be renamed and copied, a run stays itself."""
    path = folder / "run_name"
    try:
        if not path.exists():
            write_new(path, secrets.token_hex(8).encode())
        name = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        msg = f"run name {path}: {error.strerror or error}; free space or mend its permissions, then resume"
        raise HilDaftError(msg) from error
    if not is_name(name):
        msg = (
            f"run name {path}: {name[:60]!r}, 1 to 40 letters, digits, - or _ are allowed; write the name back "
            "(workers have a folder of that name in their spool), or delete the file where no worker has joined yet"
        )
        raise HilDaftError(msg)
    return name


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What a worker is told besides the learner's config."""

    robot: Literal["A", "B"]
    learner: str
    name: str
    token: str
    tls: ClientTls | None
    spool: Path
    spool_bytes: int
    tasks: tuple[str, ...]
    max_weight_age_s: float
    arm: ArmConfig | None = None
    """This worker's own arm; the bolt bench where none is given."""
    judge: JudgeConfig | None = None
    """Who says that a task is done; None for what the learner's config says."""
    seating: SeatOptions | None = None
    """The seat of the person beside the robot; None where nobody sits there."""


def run_worker(
    options: WorkerOptions, *, say: Callable[[str], None], stop: threading.Event
) -> bool:
    """Runs one robot for a learner; False where `stop` was set before the run was finished.

    Raises:
        HilDaftError: the learner refuses this worker, or spool, robot or operator fail.
    """
    client = LearnerClient(options.learner, options.token, options.tls)
    described = wait_for(client.describe, LearnerAwayError, say, stop)
    if described is None:
        return False
    spool = Spool(
        options.spool, described.run, options.name, say=say, budget_bytes=options.spool_bytes
    )
    try:
        config = read_config(_keep_config(spool.folder / "config.yaml", described.config))
        if options.judge is not None:
            config = replace(config, judge=options.judge)
        for task in options.tasks:
            require_name("tasks", task, config.tasks)
        return _run_robot(options, config, described.run, client, spool, say, stop)
    finally:
        spool.close()
        client.close()


def _keep_config(path: Path, text: str) -> Path:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"config {path}: {error.strerror or error}; free space or mend its permissions, then start again"
        raise HilDaftError(msg) from error
    return path


def _run_robot(
    options: WorkerOptions,
    config: RunConfig,
    run: str,
    client: LearnerClient,
    spool: Spool,
    say: Callable[[str], None],
    stop: threading.Event,
) -> bool:
    tasks = options.tasks or config.tasks
    seating, arm = options.seating, _arm_of(options, config)
    encoders = build_encoders(config)
    policy = build_policy(config, encoders)
    sight = None if arm is None else environment_sight(arm)
    real = isinstance(arm, RealArmConfig)
    make = partial(BoltRobot, options.robot) if arm is None else partial(open_arm, arm)
    with contextlib.ExitStack() as stack:
        device = None if seating is None else stack.enter_context(open_device(seating))
        # In a process of its own: held within 200 ms, whatever becomes of this one.
        bench = stack.enter_context(WatchedRobot(make))
        sight = sight or bench_sight(bench)
        robot, companion, station = _accompany(bench, sight, config, seating, device, stop)
        person = None if station is None else station.operator
        robot = judged(robot, config, encoders, person)
        charts = Charts()
        if seating is not None and station is not None:
            stations = {station.name: station}
            address = stack.enter_context(serve(stations, charts, seating.serving))
            say(f"console: {address}")
        # Scenes that a worker chooses itself are its own: no other worker meets them.
        own = int.from_bytes(spool.worker.encode()[-4:], "little")
        worker = Worker(
            robot,
            policy,
            companion,
            spool,
            tasks,
            Pacing(CONTROL_HZ if config.real_time or seating is not None or real else None),
            local_seed=lambda index: scene_seed(config.seed, "online", own, index),
            say=say,
            stop=stop,
            max_weight_age_s=options.max_weight_age_s,
            on_episode=charts.take_episode,
        )
        facts = WorkerFacts(
            robot=robot.name,
            action_scale=robot.action_scale,
            encoder_hash=encoders.hash,
            tasks=tasks,
        )
        link = WorkerLink(client, spool, run, facts, health=worker.health, say=say)
        if wait_for(link.join, LearnerAwayError, say, stop) is None:
            return False
        say(f"{spool.worker} (robot {robot.name}) joined run {run} at {options.learner}")
        with link:
            return worker.run(link)


def _arm_of(options: WorkerOptions, config: RunConfig) -> ArmConfig | None:
    """The arm of this worker's file; None on the bolt bench. Raises HilDaftError where it cannot be driven here."""
    arm, environment = options.arm, config.environment
    if isinstance(environment, GymConfig):
        msg = f"environment {environment.name}: workers run the bolt bench or a real arm; train it with `hildaft train`"
        raise HilDaftError(msg)
    if environment is not None and arm is None:
        # An arm's bounds are never taken from the network.
        msg = f"the learner trains {environment.name}: name this robot's own file with --env"
        raise HilDaftError(msg)
    alone = options.seating is None or not options.seating.has_person
    if alone and isinstance(arm, RealArmConfig):
        require_person(arm.name)
    return arm


def _accompany(
    bench: WatchedRobot,
    sight: Sight,
    config: RunConfig,
    seating: SeatOptions | None,
    device: Device | None,
    stop: threading.Event,
) -> tuple[Robot, Companion, Station | None]:
    """The robot as the worker steps it, who is beside it, and the seat in front of it, if there is one."""
    robot = SafeRobot(bench)
    simulated = None
    if seating is None or not seating.has_person:
        talk = "right" if config.method.talk_in_rollouts else "none"
        given = replace(config.operator, tweaks=True, talk=talk)
        simulated = SimulatedOperator(bench.scene_state, robot.action_scale, given)
    if seating is None:
        assert simulated is not None
        return robot, Companion.simulated(simulated), None
    seated = seat(bench, sight, "policy", seating, stop, helper=simulated, device=device)
    person = seated.station.operator
    companion = Companion(
        operator=person,
        begin_demonstration=person.begin_demonstration,
        demonstrate=person.demonstrate,
        keys=person,
        stand_aside=partial(person.stand_aside, "policy"),
        by_hand=simulated is None,
    )
    if simulated is not None:
        companion = replace(
            companion, begin_demonstration=simulated.begin, demonstrate=simulated.demonstrate
        )
    return seated.robot, companion, seated.station
