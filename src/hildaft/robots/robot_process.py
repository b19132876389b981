"""The process that owns a robot: executes what the worker asks, and holds the robot when nobody does any more."""

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from multiprocessing.connection import Connection, wait
from typing import Any, Final, Protocol, cast, final, runtime_checkable

import numpy as np
from jaxtyping import Float64
from safetensors.numpy import save as save_safetensors

from hildaft.robots.real_arm import HaltableRobot
from hildaft.types import HilDaftError, Observation, Robot, SceneState, StoppedError

ANSWER_S: Final = 5.0
"""A step or stop that takes longer is an error; the robot has been held long before."""
END_OF_HEAD: Final = b"\0"
"""Between an answer's JSON, which has no such byte, and its arrays."""
_GONE_S: Final = 0.2
"""A worker that dies closes its pipe; that it is dead may show a moment later."""


@runtime_checkable
class LookingRobot(Robot, Protocol):
    """A robot that can be looked at without a step."""

    def look(self) -> Observation:
        """The observation of the state as it is."""
        ...


@runtime_checkable
class SceneRobot(LookingRobot, Protocol):
    """A simulated robot, which knows the true state of its scene."""

    def scene_state(self) -> SceneState:
        """The true state, for the simulated operator."""
        ...

    def project(
        self, points_m: Float64[np.ndarray, "k 3"]
    ) -> Mapping[str, Float64[np.ndarray, "k 3"]]:
        """Where points (base axes) appear in each camera's image: u and v in image widths, depth in metres."""
        ...


@final
class _Watch:
    """Calls `hold` once when no command has come for too long; a thread of the robot's process."""

    def __init__(self, hold: Callable[[], None], after_s: float) -> None:
        self._hold, self._after_s = hold, after_s
        self._condition = threading.Condition()
        self._due_s: float | None = None
        self._ended = False
        self.holds = 0
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def feed(self) -> None:
        """A command has come."""
        with self._condition:
            self._due_s = time.monotonic() + self._after_s
            self._condition.notify()

    def rest(self) -> None:
        """Nothing is expected until the next command."""
        with self._condition:
            self._due_s = None

    def end(self) -> None:
        with self._condition:
            self._ended = True
            self._condition.notify()

    def _run(self) -> None:
        _take_precedence()
        while True:
            with self._condition:
                if self._ended:
                    return
                left_s = None if self._due_s is None else self._due_s - time.monotonic()
                if left_s is None or left_s > 0:
                    self._condition.wait(left_s)
                    continue
                self._due_s = None
                self.holds += 1
            self._hold()


@final
class _Halt:
    """Which of the worker's requests may move the robot: none that was stopped, and none once the worker is gone."""

    def __init__(self, robot: Robot) -> None:
        self._halted = robot.halted if isinstance(robot, HaltableRobot) else threading.Event()
        self._name = robot.name
        self._lock = threading.Lock()
        self._stopped, self._worker_gone = 0, False

    def begin(self, number: int) -> None:
        """A request that moves the robot begins; raises StoppedError where it must not."""
        with self._lock:
            if self._worker_gone or number <= self._stopped:
                msg = f"robot {self._name}: stopped before it moved; start again"
                raise StoppedError(msg)
            self._halted.clear()

    def stop(self, number: int) -> None:
        """Ends the motions asked for up to this request."""
        with self._lock:
            self._stopped = max(self._stopped, number)
            self._halted.set()

    def lose_worker(self) -> None:
        """Ends every motion, for good."""
        with self._lock:
            self._worker_gone = True
            self._halted.set()


def serve(
    make: Callable[[], Robot], connection: Connection, orders: Connection, hold_after_s: float
) -> None:
    """Owns the robot until the worker closes the pipe or is gone.

    Args:
        make: makes the robot.
        connection: requests, and their answers.
        orders: numbers of requests whose motion is to end at once.
        hold_after_s: silence (s) after which the robot is held.
    """
    # Keys and a terminal that closes reach this process too; the worker decides, and its end ends this.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    try:
        robot = make()
    except HilDaftError as error:
        _reply(connection, 0, {"error": str(error)}, {})
        return
    watch, halt, done = _Watch(robot.stop, hold_after_s), _Halt(robot), threading.Event()
    keeper = threading.Thread(target=_keep, args=(robot, halt, orders, done), daemon=True)
    keeper.start()
    scale = robot.action_scale
    facts = {
        "name": robot.name,
        "translation_m": scale.translation_m,
        "rotation_rad": scale.rotation_rad,
    }
    try:
        _reply(connection, 0, facts, {})
        while True:
            _answer(robot, watch, halt, connection)
    except (EOFError, OSError):
        # The worker has closed the pipe, or is gone.
        pass
    finally:
        watch.end()
        if _worker_is_gone():
            # Closing lets many arms fall limp: nobody has asked for that. The keeper ends this process.
            done.set()
            keeper.join()
        robot.stop()
        close = getattr(robot, "close", None)
        if close is not None:
            close()


def _answer(robot: Robot, watch: _Watch, halt: _Halt, connection: Connection) -> None:
    """Waits for one request and answers it."""
    request = cast(dict[str, Any], json.loads(connection.recv_bytes()))
    try:
        values, arrays = _execute(robot, watch, halt, request)
    except HilDaftError as error:
        values = {"error": str(error), "stopped": isinstance(error, StoppedError)}
        arrays = {}
    _reply(connection, request["number"], values, arrays)


def _worker_is_gone() -> bool:
    worker = multiprocessing.parent_process()
    assert worker is not None
    return bool(wait([worker.sentinel], _GONE_S))


def _take_precedence() -> None:
    """Lets this thread run before all others of the machine, where that is allowed: it has almost nothing to do."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def _keep(robot: Robot, halt: _Halt, orders: Connection, done: threading.Event) -> None:
    """Holds the robot at an order, and the moment the worker is gone, whatever it does; then ends this process."""
    _take_precedence()
    worker = multiprocessing.parent_process()
    assert worker is not None
    awaited: list[Any] = [worker.sentinel, orders]
    while worker.sentinel not in wait(awaited):
        try:
            halt.stop(int(orders.recv_bytes()))
        except (EOFError, OSError):  # noqa: PERF203 - each order on its own
            awaited.remove(orders)
        else:
            robot.stop()
    try:
        halt.lose_worker()
        robot.stop()
        # A step that hangs in a dead camera would keep the process, and the robot's devices with it, for ever.
        done.wait(ANSWER_S)
        # What was on its way when the worker died may have come after the hold.
        robot.stop()
    finally:
        os._exit(1)


def _execute(
    robot: Robot, watch: _Watch, halt: _Halt, request: dict[str, Any]
) -> tuple[dict[str, Any], Mapping[str, np.ndarray]]:
    match request["what"]:
        case "step":
            halt.begin(request["number"])
            watch.feed()
            result = robot.step(np.array(request["action"], dtype=np.float32))
            values = {
                "reward": result.reward,
                "terminated": result.terminated,
                "truncated": result.truncated,
            }
            return values, _arrays(result.observation)
        case "reset":
            halt.begin(request["number"])
            watch.rest()
            return {}, _arrays(robot.reset(request["task"], request["seed"]))
        case "scene_state":
            assert isinstance(robot, SceneRobot)
            state = robot.scene_state()
            whole = {item.name: getattr(state, item.name) for item in fields(state)}
            arrays = {name: v for name, v in whole.items() if isinstance(v, np.ndarray)}
            return {n: v for n, v in whole.items() if n not in arrays}, arrays
        case "look":
            assert isinstance(robot, LookingRobot)
            return {}, _arrays(robot.look())
        case "project":
            assert isinstance(robot, SceneRobot)
            return {}, robot.project(np.array(request["points_m"], dtype=np.float64))
        case "holds":
            return {"holds": watch.holds}, {}
        case _:
            watch.rest()
            robot.stop()
            return {}, {}


def _reply(
    connection: Connection,
    number: int,
    values: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """One message: whoever is interrupted while reading an answer misses all of it or nothing."""
    plain = {n: v.item() if isinstance(v, np.generic) else v for n, v in values.items()}
    head = json.dumps({"number": number, **plain}).encode()
    body = save_safetensors({name: np.ascontiguousarray(v) for name, v in arrays.items()})
    connection.send_bytes(head + END_OF_HEAD + body)


def _arrays(observation: Observation) -> dict[str, np.ndarray]:
    images = {f"image/{name}": image for name, image in observation.images.items()}
    return {"proprio": observation.proprio, **images}
