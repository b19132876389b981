"""The operator's seat: `console` (drive alone, or beside a run's policy) and `record` (demonstrations)."""

import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from hildaft.commands.parse import parse_words
from hildaft.console.charts import Charts
from hildaft.console.serving import ServingConfig, serve
from hildaft.console.sessions import (
    Demonstrator,
    Recording,
    SeededPolicy,
    accompany,
    person,
    practise,
    simulated,
)
from hildaft.console.sessions import record as record_demonstrations
from hildaft.console.station import Station
from hildaft.runtime.interaction import Pacing
from hildaft.teleop.browser import SeatConfig
from hildaft.teleop.simulated_operator import SimulatedOperator
from hildaft.types import CONTROL_HZ, Episode, HilDaftError


@dataclass(frozen=True)
class ConsoleArguments:
    """Open the operator's seat in the browser. Without a run nobody but you moves the arm; nothing is kept."""

    run: tyro.conf.Positional[Path | None] = None
    """Run folder whose newest policy acts while you talk and tweak."""
    robots: tuple[Literal["A", "B"], ...] = ("A",)
    """Bench variants to open; the page switches between them."""
    tasks: tuple[str, ...] = ()
    """Tasks to go through; all of the bench's, or the run's, where not given."""
    seed: int = 0
    """Decides the scenes."""
    serving: ServingConfig = field(default_factory=ServingConfig)
    """Where the console listens."""
    seat: SeatConfig = field(default_factory=SeatConfig)
    """How the robot passes between your hand and the policy."""


def console(words: Sequence[str]) -> int:
    """`hildaft console [RUN] [--robots A B] [--serving.port N]`."""
    given = parse_words(ConsoleArguments, "console", words)
    if not given.robots or len(set(given.robots)) != len(given.robots):
        msg = f"robots={given.robots}: one or more different names out of A, B are allowed"
        raise HilDaftError(msg)
    stop, charts = threading.Event(), Charts()
    stations: dict[str, Station] = {}
    ready = threading.Barrier(len(given.robots) + 1)
    with _stoppable(stop), ThreadPoolExecutor(len(given.robots), "robot") as pool:
        # Each robot lives in a thread of its own from its first picture on: OpenGL contexts belong to one.
        loops = [
            pool.submit(_robot_loop, given, name, stations, charts, ready, stop)
            for name in given.robots
        ]
        try:
            ready.wait()
            ordered = {name: stations[name] for name in given.robots}
            with serve(ordered, charts, given.serving) as address:
                print(f"console: {address}", flush=True)
                wait(loops, return_when=FIRST_COMPLETED)
        except threading.BrokenBarrierError:
            pass
        finally:
            stop.set()
    for loop in loops:
        loop.result()
    return 0


def _robot_loop(
    given: ConsoleArguments,
    name: Literal["A", "B"],
    stations: dict[str, Station],
    charts: Charts,
    ready: threading.Barrier,
    stop: threading.Event,
) -> None:
    from hildaft.config import TASKS, require_name
    from hildaft.robots.bolt_sim.robot import BoltRobot
    from hildaft.seating import seat

    try:
        policy = None
        allowed = TASKS
        if given.run is not None:
            policy, allowed = _newest_policy(given.run)
        for task in given.tasks:
            require_name("tasks", task, allowed)
        tasks = given.tasks or allowed
        bolt_robot = BoltRobot(name)
    except BaseException:
        ready.abort()
        raise
    try:
        mode = "practice" if policy is None else "policy"
        seated = seat(bolt_robot, mode, given.seat, stop)
        stations[name] = seated.station
        ready.wait()
        if policy is None:
            practise(seated.station, seated.robot, tasks, charts, stop, seed=given.seed)
        else:
            accompany(seated.station, seated.robot, policy, tasks, charts, stop, seed=given.seed)
    finally:
        stop.set()
        bolt_robot.close()


def _newest_policy(folder: Path) -> tuple[SeededPolicy, tuple[str, ...]]:
    """A run's newest policy, ready to act, and the tasks it was trained on."""
    from hildaft.algo.checkpoint import read_newest
    from hildaft.algo.training import published_weights
    from hildaft.build import build_encoders, build_policy
    from hildaft.config import read_config

    config = read_config(folder / "config.yaml")
    checkpoint = read_newest(folder / "checkpoints")
    if checkpoint.warning:
        print(f"hildaft: {checkpoint.warning}", file=sys.stderr)
    policy = build_policy(config, build_encoders(config))
    policy.load_weights(published_weights(checkpoint.tensors), checkpoint.step)
    return policy, config.tasks


@dataclass(frozen=True)
class RecordArguments:
    """Record demonstrations; each is on disk before you are asked whether to keep it. Goes on where it stopped."""

    out: Path = Path("runs") / "demonstrations"
    """Folder: `episodes` are kept, `pending` wait for a verdict, `discarded` were refused."""
    tasks: tuple[str, ...] = ()
    """Tasks to demonstrate; all of the bench's where not given."""
    episodes: int = 20
    """Demonstrations per task (Sec. V-A)."""
    by: Literal["console", "simulated"] = "console"
    """Who demonstrates: you in the browser, or the simulated operator, who keeps the successful ones."""
    robot: Literal["A", "B"] = "A"
    """Bench variant."""
    seed: int = 0
    """Decides the scenes."""
    serving: ServingConfig = field(default_factory=ServingConfig)
    """Where the console listens."""
    seat: SeatConfig = field(default_factory=SeatConfig)
    """How the robot follows your hand."""


def record(words: Sequence[str]) -> int:
    """`hildaft record [--out FOLDER] [--episodes N] [--by console|simulated]`."""
    from hildaft.config import TASKS, require_name

    given = parse_words(RecordArguments, "record", words)
    if given.episodes < 1:
        msg = f"episodes={given.episodes}: 1 or more is allowed"
        raise HilDaftError(msg)
    for task in given.tasks:
        require_name("tasks", task, TASKS)
    recording, stop = Recording(given.out), threading.Event()
    with _stoppable(stop):
        finished = _record_into(recording, given, stop)
    print(recording.summary())
    if not finished:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _record_into(recording: Recording, given: RecordArguments, stop: threading.Event) -> bool:
    from hildaft.build import build_encoders, build_policy
    from hildaft.config import TASKS, RunConfig
    from hildaft.robots.bolt_sim.robot import BoltRobot
    from hildaft.runtime.session import scene_seed
    from hildaft.seating import seat

    config, charts = RunConfig(robot=given.robot), Charts()
    encoders = build_policy(config, build_encoders(config))
    bolt_robot = BoltRobot(given.robot)
    try:
        seated = seat(bolt_robot, "record", given.seat, stop)
        station = seated.station

        def show(task: str, kept: int, episode: Episode | None) -> None:
            station.note = f"{task}: {kept} of {given.episodes} kept"
            if episode is None:
                charts.stage(f"record {task}", given.episodes)
                charts.advance(kept, {})
            else:
                charts.episode(success=episode.success, helped=len(episode), steps=len(episode))

        def run(demonstrator: Demonstrator, pacing: Pacing) -> bool:
            return record_demonstrations(
                seated.robot,
                encoders,
                demonstrator,
                recording,
                given.tasks or TASKS,
                given.episodes,
                lambda task, attempt: scene_seed(given.seed, "demo", TASKS.index(task), attempt),
                stop,
                pacing=pacing,
                on_progress=show,
            )

        if given.by == "simulated":
            operator = SimulatedOperator(bolt_robot.scene_state, seated.robot.action_scale)
            return run(simulated(operator), Pacing())
        with serve({station.name: station}, charts, given.serving) as address:
            print(f"console: {address}", flush=True)
            return run(person(station, stop), Pacing(CONTROL_HZ))
    finally:
        bolt_robot.close()


@contextmanager
def _stoppable(stop: threading.Event) -> Generator[None]:
    """Sets `stop` on the first interrupt; the second one ends the process at once."""

    def on_signal(number: int, frame: object) -> None:
        del frame
        stop.set()
        signal.signal(number, signal.default_int_handler)

    before: dict[int, Callable[..., object] | int | None] = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
