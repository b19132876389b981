"""The operator's seat: `console` (drive alone, or beside a run's policy) and `record` (demonstrations, corrections)."""

import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from hildaft.commands.parse import parse_words
from hildaft.console.charts import Charts
from hildaft.console.recording import Recording
from hildaft.console.serving import serve
from hildaft.console.sessions import (
    Recorder,
    SeededPolicy,
    accompany,
    corrections,
    demonstrations,
    person,
    practise,
    reviewed,
    simulated,
)
from hildaft.console.sessions import record as record_episodes
from hildaft.console.station import Station
from hildaft.robots.judged import JudgeConfig
from hildaft.runtime.interaction import Pacing
from hildaft.seating import SeatOptions, bench_sight, open_device, seat
from hildaft.teleop.device import Device
from hildaft.types import CONTROL_HZ, Episode, HilDaftError, Operator, Robot

if TYPE_CHECKING:
    from hildaft.config import RunConfig
    from hildaft.models.backbone import FrozenEncoders
    from hildaft.teleop.scripted_operator import ScriptedOperator
    from hildaft.teleop.simulated_operator import SimulatedOperator


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
    from hildaft.build import build_encoders
    from hildaft.config import TASKS, read_config
    from hildaft.config_files import require_name
    from hildaft.robots.bolt_sim.robot import BoltRobot

    try:
        policy = None
        allowed = TASKS
        if given.run is not None:
            config = read_config(given.run / "config.yaml")
            policy = _newest_policy(given.run, config, build_encoders(config))
            allowed = config.tasks
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


def _newest_policy(folder: Path, config: "RunConfig", encoders: "FrozenEncoders") -> SeededPolicy:
    """A run's newest policy, ready to act; raises HilDaftError where there is no whole checkpoint."""
    from hildaft.algo.checkpoint import read_newest
    from hildaft.algo.training import published_weights, require_encoders
    from hildaft.build import build_policy, trained_on

    checkpoint = read_newest(folder / "checkpoints")
    if checkpoint.warning:
        print(f"hildaft: {checkpoint.warning}", file=sys.stderr)
    require_encoders(checkpoint.tensors, trained_on(config, encoders))
    policy = build_policy(config, encoders)
    policy.load_weights(published_weights(checkpoint.tensors), checkpoint.step)
    return policy


@dataclass(frozen=True)
class RecordArguments:
    """Record demonstrations, or corrections of a policy; each is on disk before you judge it. Resumes."""

    out: Path | None = None
    """Folder: `episodes` are kept, `pending` wait for a verdict, `discarded` were refused. runs/demonstrations, or
    runs/corrections with --policy, where not given; one folder may hold both."""
    policy: Path | None = None
    """Run folder whose newest policy acts while you talk and tweak; what you correct is stored with its words, as in
    training, and `train --corrections` learns from it. Robot, environment and judge are the run's."""
    tasks: tuple[str, ...] = ()
    """Tasks to record; all of the bench's, or the run's, where not given."""
    episodes: int = 20
    """Episodes per task (Sec. V-A: 20 demonstrations)."""
    robot: Literal["A", "B"] | None = None
    """Bench variant; A, or the run's own, where not given."""
    seed: int = 0
    """Decides the scenes."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    """Who says that a task is done; your keys count whoever else does."""
    env: Path | None = None
    """YAML file of a Gymnasium environment or a real arm to record on in the bolt bench's place."""
    seated: Annotated[SeatOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: SeatOptions(operator="browser")
    )

    @property
    def folder(self) -> Path:
        """Where the episodes go."""
        kind = "demonstrations" if self.policy is None else "corrections"
        return self.out or Path("runs") / kind


def record(words: Sequence[str]) -> int:
    """`hildaft record [--policy RUN] [--out FOLDER] [--episodes N] [--operator browser|spacemouse|gamepad|...]`."""
    from hildaft.config_files import require_name

    given = parse_words(RecordArguments, "record", words)
    if given.episodes < 1:
        msg = f"episodes={given.episodes}: 1 or more is allowed"
        raise HilDaftError(msg)
    config = _record_config(given)
    for task in given.tasks:
        require_name("tasks", task, config.tasks)
    stop = threading.Event()
    with _stoppable(stop), open_device(given.seated) as device:
        finished, summary = _record_into(given, config, device, stop)
    print(summary)
    if not finished:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _record_config(given: RecordArguments) -> "RunConfig":
    from hildaft.config import RunConfig, read_config, with_environment

    if given.policy is None:
        config = RunConfig(robot=given.robot or "A", judge=given.judge)
        return config if given.env is None else with_environment(config, given.env)
    config = read_config(given.policy / "config.yaml")
    if given.env is not None:
        msg = f"record --env {given.env}: with --policy the environment is that of run {given.policy}; leave --env away"
        raise HilDaftError(msg)
    if given.robot is not None and config.environment is not None:
        msg = f"record --robot {given.robot}: run {given.policy} is not on the bolt bench; leave --robot away"
        raise HilDaftError(msg)
    judge = config.judge if given.judge == JudgeConfig() else given.judge
    return replace(config, robot=given.robot or config.robot, judge=judge)


def _record_into(
    given: RecordArguments,
    config: "RunConfig",
    device: Device | None,
    stop: threading.Event,
) -> tuple[bool, str]:
    """Whether everything wanted is there, and what there is."""
    from hildaft.build import build_encoders, build_operator, build_policy, open_station
    from hildaft.judging import judged
    from hildaft.runtime.session import scene_seed

    frozen = build_encoders(config)
    # Before a folder is made: a run without a whole checkpoint has no policy.
    acting = None if given.policy is None else _newest_policy(given.policy, config, frozen)
    charts, tasks = Charts(), given.tasks or config.tasks
    place = open_station(config)
    try:
        place.check()
        mode = "record" if acting is None else "policy"
        seated = seat(place.robot, place.sight, mode, given.seated, stop, device=device)
        station = seated.station
        by_hand = given.seated.has_person
        robot = judged(seated.robot, config, frozen, station.operator if by_hand else None)
        helper = None if by_hand else build_operator(config, place)
        if acting is None:
            encoders = build_policy(config, frozen)
            recorder = _demonstrates(robot, encoders, station, helper, stop)
        else:
            recorder = _corrects(robot, acting, station, helper, stop)
        recording = Recording(given.folder, partial(print, file=sys.stderr, flush=True))
        kind = "demo" if acting is None else "correction"

        def seed_of(task: str, attempt: int) -> int:
            return scene_seed(given.seed, kind, config.tasks.index(task), attempt)

        def show(task: str, kept: int, episode: Episode | None) -> None:
            station.note = f"{task}: {kept} of {given.episodes} kept"
            if episode is None:
                charts.stage(f"record {task}", given.episodes)
                charts.advance(kept, {})
            else:
                helped = len(episode) if acting is None else int(episode.is_intervention.sum())
                charts.episode(success=episode.success, helped=helped, steps=len(episode))

        with ExitStack() as stack:
            if by_hand:
                stations = {station.name: station}
                address = stack.enter_context(serve(stations, charts, given.seated.serving))
                print(f"console: {address}", flush=True)
            finished = record_episodes(
                recorder, recording, tasks, given.episodes, seed_of, stop, on_progress=show
            )
        return finished, recording.summary(station.frame.words)
    finally:
        place.close()


def _demonstrates(
    robot: Robot,
    encoders: SeededPolicy,
    station: Station,
    helper: "SimulatedOperator | ScriptedOperator | None",
    stop: threading.Event,
) -> Recorder:
    """The person at the station demonstrates, or `helper` in their place, who does not keep to the clock."""
    if helper is not None:
        return demonstrations(robot, encoders, simulated(helper), Pacing())
    return demonstrations(robot, encoders, person(station, stop), Pacing(CONTROL_HZ))


def _corrects(
    robot: Robot,
    policy: SeededPolicy,
    station: Station,
    helper: Operator | None,
    stop: threading.Event,
) -> Recorder:
    """The policy acts; the person at the station corrects it, or `helper` in their place."""
    if helper is not None:
        # What a policy does is worth keeping whether it succeeds or not, as in training.
        return corrections(robot, policy, helper, lambda _: True, Pacing())
    judge, keys = partial(reviewed, station, stop), station.operator
    return corrections(robot, policy, station.operator, judge, Pacing(CONTROL_HZ), keys)


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
