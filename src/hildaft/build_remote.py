"""From a config to a learner that serves workers, and from a learner's config to a worker."""

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
from hildaft.build import (
    PROPRIO_DIM,
    build_encoders,
    build_learner,
    build_policy,
    claim_folder,
    plan_of,
    resolve_config,
)
from hildaft.config import RunConfig, config_text, read_config, require_name
from hildaft.data.episodes import EpisodeStore
from hildaft.eval.remote_bench import RemoteBench
from hildaft.robots.bolt_sim.robot import BoltRobot
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
from hildaft.runtime.precedence import yield_to_robots
from hildaft.runtime.progress import ProgressView
from hildaft.runtime.rig import Companion
from hildaft.runtime.session import scene_seed
from hildaft.runtime.training_run import TrainingRun
from hildaft.runtime.worker import Worker, wait_for
from hildaft.teleop.simulated_operator import SimulatedOperator
from hildaft.types import CONTROL_HZ, ActionScale

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
) -> Generator[tuple[RemoteSession, LinkServer, ProgressView]]:
    """A learner that serves workers in `folder`, ready to run; with a crew, its first process.

    Raises:
        HilDaftError: the folder exists and `resume` was not asked for, or the reverse; the address cannot be used.
    """
    require_secure(listen, tls)
    config = resolve_config(config, folder, resume=resume)
    crew.tell(Order.CONFIG, config_text(config).encode)
    encoders = build_encoders(config)
    learner = build_learner(config, encoders, crew)
    if not resume:
        claim_folder(config, folder)
    if config.real_time:
        # Before any thread is started, so that all of them do.
        yield_to_robots()
    with ProgressView(config.tasks) as view:
        run = TrainingRun(folder, learner, view, stop)
        widths = (encoders.h_dim, encoders.feature_dim, PROPRIO_DIM)
        intake = _open_intake(config, folder, run, encoders.hash, widths)
        session, server = _serve(config, folder, run, intake, view, listen, tls, stop)
        with server:
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
        action_scale=ActionScale(),
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
    return RemoteSession(run, plan, intake, roster, shelf, progress, bench, view, stop), server


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
    if not path.exists():
        path.write_text(secrets.token_hex(8), encoding="ascii")
    return path.read_text(encoding="ascii").strip()


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


def run_worker(
    options: WorkerOptions, *, say: Callable[[str], None], stop: threading.Event
) -> bool:
    """Runs a bench robot for a learner; False where `stop` was set before the run was finished.

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
        config_path = spool.folder / "config.yaml"
        config_path.write_text(described.config, encoding="utf-8")
        config = read_config(config_path)
        for task in options.tasks:
            require_name("tasks", task, config.tasks)
        return _run_on_bench(options, config, described.run, client, spool, say, stop)
    finally:
        spool.close()
        client.close()


def _run_on_bench(
    options: WorkerOptions,
    config: RunConfig,
    run: str,
    client: LearnerClient,
    spool: Spool,
    say: Callable[[str], None],
    stop: threading.Event,
) -> bool:
    tasks = options.tasks or config.tasks
    encoders = build_encoders(config)
    policy = build_policy(config, encoders)
    # In a process of its own: held within 200 ms, whatever becomes of this one.
    with WatchedRobot(partial(BoltRobot, options.robot)) as bench:
        robot = SafeRobot(bench)
        talk = "right" if config.method.talk_in_rollouts else "none"
        operator = SimulatedOperator(
            bench.scene_state,
            robot.action_scale,
            replace(config.operator, tweaks=True, talk=talk),
        )
        # Scenes that a worker chooses itself are its own: no other worker meets them.
        own = int.from_bytes(spool.worker.encode()[-4:], "little")
        worker = Worker(
            robot,
            policy,
            Companion.simulated(operator),
            spool,
            tasks,
            Pacing(CONTROL_HZ if config.real_time else None),
            local_seed=lambda index: scene_seed(config.seed, "online", own, index),
            say=say,
            stop=stop,
            max_weight_age_s=options.max_weight_age_s,
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
