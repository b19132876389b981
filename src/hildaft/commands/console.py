"""The operator's seat: `console` (drive alone, or beside a run's policy) and `record` (demonstrations)."""

import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from hildaft.commands.parse import parse_words
from hildaft.console.charts import Charts
from hildaft.console.serving import serve
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
from hildaft.robots.judged import JudgeConfig
from hildaft.runtime.interaction import Pacing
from hildaft.seating import SeatOptions, bench_sight, open_device, seat
from hildaft.teleop.device import Device
from hildaft.types import CONTROL_HZ, Episode, HilDaftError

if TYPE_CHECKING:
    from hildaft.config import RunConfig


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
    seated: Annotated[SeatOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: SeatOptions(operator="browser")
    )


def console(words: Sequence[str]) -> int:
    """`hildaft console [RUN] [--robots A B] [--operator spacemouse] [--serving.port N]`."""
    given = parse_words(ConsoleArguments, "console", words)
    if not given.robots or len(set(given.robots)) != len(given.robots):
        msg = f"robots={given.robots}: one or more different names out of A, B are allowed"
        raise HilDaftError(msg)
    if not given.seated.has_person:
        msg = "console --operator simulated: browser, spacemouse, gamepad are allowed; `hildaft demo` simulates one"
        raise HilDaftError(msg)
    stop, charts = threading.Event(), Charts()
    stations: dict[str, Station] = {}
    ready = threading.Barrier(len(given.robots) + 1)
    with (
        _stoppable(stop),
        open_device(given.seated) as device,
        ThreadPoolExecutor(len(given.robots), "robot") as pool,
    ):
        # Each robot lives in a thread of its own from its first picture on: OpenGL contexts belong to one.
        loops = [
            # The device in the hand is at the first robot; the page reaches them all.
            pool.submit(
                _robot_loop, given, name, None if number else device, stations, charts, ready, stop
            )
            for number, name in enumerate(given.robots)
        ]
        try:
            ready.wait()
            ordered = {name: stations[name] for name in given.robots}
            with serve(ordered, charts, given.seated.serving) as address:
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
    device: Device | None,
    stations: dict[str, Station],
    charts: Charts,
    ready: threading.Barrier,
    stop: threading.Event,
) -> None:
    from hildaft.config import TASKS, require_name
    from hildaft.robots.bolt_sim.robot import BoltRobot

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
        sight = bench_sight(bolt_robot)
        seated = seat(bolt_robot, sight, mode, given.seated, stop, device=device)
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
    robot: Literal["A", "B"] = "A"
    """Bench variant."""
    seed: int = 0
    """Decides the scenes."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    """Who says that a task is done; your keys count whoever else does."""
    env: Path | None = None
    """YAML file of a Gymnasium environment to record on in the bolt bench's place."""
    seated: Annotated[SeatOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: SeatOptions(operator="browser")
    )


def record(words: Sequence[str]) -> int:
    """`hildaft record [--out FOLDER] [--episodes N] [--operator browser|spacemouse|gamepad|simulated]`."""
    from hildaft.config import RunConfig, require_name, with_environment

    given = parse_words(RecordArguments, "record", words)
    if given.episodes < 1:
        msg = f"episodes={given.episodes}: 1 or more is allowed"
        raise HilDaftError(msg)
    config = RunConfig(robot=given.robot, judge=given.judge)
    if given.env is not None:
        config = with_environment(config, given.env)
    for task in given.tasks:
        require_name("tasks", task, config.tasks)
    stop = threading.Event()
    with _stoppable(stop), open_device(given.seated) as device:
        recording = Recording(given.out)
        finished = _record_into(recording, given, config, device, stop)
    print(recording.summary())
    if not finished:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _record_into(
    recording: Recording,
    given: RecordArguments,
    config: "RunConfig",
    device: Device | None,
    stop: threading.Event,
) -> bool:
    from hildaft.build import build_encoders, build_policy, open_station
    from hildaft.judging import judged
    from hildaft.runtime.session import scene_seed

    charts, tasks = Charts(), given.tasks or config.tasks
    frozen = build_encoders(config)
    encoders = build_policy(config, frozen)
    place = open_station(config)
    try:
        place.check()
        seated = seat(place.robot, place.sight, "record", given.seated, stop, device=device)
        station = seated.station
        judge = station.operator if given.seated.has_person else None
        robot = judged(seated.robot, config, frozen, judge)

        def show(task: str, kept: int, episode: Episode | None) -> None:
            station.note = f"{task}: {kept} of {given.episodes} kept"
            if episode is None:
                charts.stage(f"record {task}", given.episodes)
                charts.advance(kept, {})
            else:
                charts.episode(success=episode.success, helped=len(episode), steps=len(episode))

        def run(demonstrator: Demonstrator, pacing: Pacing) -> bool:
            return record_demonstrations(
                robot,
                encoders,
                demonstrator,
                recording,
                tasks,
                given.episodes,
                lambda task, attempt: scene_seed(
                    given.seed, "demo", config.tasks.index(task), attempt
                ),
                stop,
                pacing=pacing,
                on_progress=show,
            )

        if not given.seated.has_person:
            operator = place.operator(replace(config.operator, step_limit=config.step_limit))
            return run(simulated(operator), Pacing())
        with serve({station.name: station}, charts, given.seated.serving) as address:
            print(f"console: {address}", flush=True)
            return run(person(station, stop), Pacing(CONTROL_HZ))
    finally:
        place.close()


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
