"""A robot in a process of its own, which holds it when nobody commands it any more.

Whatever happens to the worker (killed, stopped, its policy frozen) or to a camera inside `step`, the process that
owns the robot goes on and commands a hold. It learns of a dead worker at once, because their pipe closes, and of a
frozen one because the next command does not come.
"""

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
from types import TracebackType
from typing import Any, Final, Protocol, cast, final, runtime_checkable

import numpy as np
from jaxtyping import Float64
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from hildaft.types import (
    Action,
    ActionScale,
    HilDaftError,
    Observation,
    Robot,
    SceneState,
    StepResult,
)

HOLD_AFTER_S: Final = 0.17
"""Silence after which the robot is held: 1.7 control periods, so that the hold comes within 200 ms."""
ANSWER_S: Final = 5.0
"""A step or stop that takes longer is an error; the robot has been held long before."""
RESET_S: Final = 120.0
"""A reset may move the arm, or wait for a person; starting the robot may take as long."""


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
class WatchedRobot:
    """Implements `Robot` on a robot that lives in a process of its own; a context manager.

    The watch begins with an episode's first step and ends with `stop`. A command that comes after a hold is
    executed as any other.

    Args:
        make: makes the robot, in its process; has to be importable there.
        hold_after_s: silence (s) after which the robot is held.

    Raises:
        HilDaftError: the robot cannot be made, or does not answer; from every method.
    """

    def __init__(self, make: Callable[[], Robot], *, hold_after_s: float = HOLD_AFTER_S) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(make, theirs, hold_after_s), name="robot", daemon=True
        )
        self._process.start()
        theirs.close()
        self._lock = threading.Lock()
        try:
            facts, _ = self._answer(RESET_S)
        except HilDaftError:
            self.close()
            raise
        self._name = str(facts["name"])
        self._scale = ActionScale(float(facts["translation_m"]), float(facts["rotation_rad"]))

    @property
    def name(self) -> str:
        """The robot's name."""
        return self._name

    @property
    def action_scale(self) -> ActionScale:
        """The robot's action scale."""
        return self._scale

    @property
    def holds(self) -> int:
        """How often the watch has held the robot so far."""
        return int(self._ask("holds", ANSWER_S)[0]["holds"])

    def reset(self, task: str, seed: int) -> Observation:
        """Resets the robot."""
        _, arrays = self._ask("reset", RESET_S, task=task, seed=seed)
        return _observation(arrays)

    def step(self, action: Action) -> StepResult:
        """Executes one action; feeds the watch."""
        values, arrays = self._ask("step", ANSWER_S, action=[float(value) for value in action])
        return StepResult(
            observation=_observation(arrays),
            reward=float(values["reward"]),
            terminated=bool(values["terminated"]),
            truncated=bool(values["truncated"]),
        )

    def stop(self) -> None:
        """Leaves the arm holding still, and ends the watch until the next step."""
        if self._process.is_alive():
            self._ask("stop", ANSWER_S)

    def scene_state(self) -> SceneState:
        """The true state of a simulated scene."""
        values, arrays = self._ask("scene_state", ANSWER_S)
        state: dict[str, Any] = {**values, **arrays}
        return SceneState(**state)

    def look(self) -> Observation:
        """The observation of the state as it is, without a step."""
        return _observation(self._ask("look", ANSWER_S)[1])

    def project(
        self, points_m: Float64[np.ndarray, "k 3"]
    ) -> Mapping[str, Float64[np.ndarray, "k 3"]]:
        """Where points of a simulated scene appear in its cameras' images."""
        return self._ask("project", ANSWER_S, points_m=points_m.tolist())[1]

    def close(self) -> None:
        """Ends the robot's process, which stops the robot; safe to call more than once."""
        self._connection.close()
        self._process.join(ANSWER_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> "WatchedRobot":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(
        self, what: str, patience_s: float, **values: object
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        with self._lock:
            try:
                self._connection.send_bytes(json.dumps({"what": what, **values}).encode())
            except OSError as error:
                msg = "robot: its process has ended; it was stopped then, start the worker again"
                raise HilDaftError(msg) from error
            return self._answer(patience_s)

    def _answer(self, patience_s: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        try:
            if not self._connection.poll(patience_s):
                msg = (
                    f"robot: no answer within {patience_s:.0f} s, it was told to hold; check its cameras and its "
                    "connection, then start the worker again"
                )
                self._process.kill()
                raise HilDaftError(msg)
            values = cast(dict[str, Any], json.loads(self._connection.recv_bytes()))
            arrays = load_safetensors(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            msg = "robot: its process has ended; it was stopped then, start the worker again"
            raise HilDaftError(msg) from error
        if "error" in values:
            raise HilDaftError(values["error"])
        return values, arrays


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


def _serve(make: Callable[[], Robot], connection: Connection, hold_after_s: float) -> None:
    """The robot's process: until the pipe closes, for whatever reason."""
    # Ctrl-C in a terminal reaches this process too; the worker decides, and its end ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        robot = make()
    except HilDaftError as error:
        _reply(connection, {"error": str(error)}, {})
        return
    watch = _Watch(robot.stop, hold_after_s)
    threading.Thread(target=_outlive_worker, args=(robot.stop,), daemon=True).start()
    scale = robot.action_scale
    facts = {
        "name": robot.name,
        "translation_m": scale.translation_m,
        "rotation_rad": scale.rotation_rad,
    }
    try:
        _reply(connection, facts, {})
        while True:
            request = cast(dict[str, Any], json.loads(connection.recv_bytes()))
            try:
                values, arrays = _execute(robot, watch, request)
            except HilDaftError as error:
                values, arrays = {"error": str(error)}, {}
            _reply(connection, values, arrays)
    except (EOFError, OSError):
        # The worker is gone, in good order or not.
        pass
    finally:
        watch.end()
        robot.stop()
        close = getattr(robot, "close", None)
        if close is not None:
            close()


def _take_precedence() -> None:
    """Lets this thread run before all others of the machine, where that is allowed: it has almost nothing to do."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def _outlive_worker(hold: Callable[[], None]) -> None:
    """Holds the robot the moment the worker is gone, also while a step hangs; then ends this process."""
    _take_precedence()
    worker = multiprocessing.parent_process()
    assert worker is not None
    wait([worker.sentinel])
    hold()
    # A step that hangs in a dead camera would keep the process, and the robot's devices with it, for ever.
    time.sleep(ANSWER_S)
    os._exit(1)


def _execute(
    robot: Robot, watch: _Watch, request: dict[str, Any]
) -> tuple[dict[str, Any], Mapping[str, np.ndarray]]:
    match request["what"]:
        case "step":
            watch.feed()
            result = robot.step(np.array(request["action"], dtype=np.float32))
            values = {
                "reward": result.reward,
                "terminated": result.terminated,
                "truncated": result.truncated,
            }
            return values, _arrays(result.observation)
        case "reset":
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
    connection: Connection, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    plain = {n: v.item() if isinstance(v, np.generic) else v for n, v in values.items()}
    connection.send_bytes(json.dumps(plain).encode())
    connection.send_bytes(
        save_safetensors({name: np.ascontiguousarray(v) for name, v in arrays.items()})
    )


def _arrays(observation: Observation) -> dict[str, np.ndarray]:
    images = {f"image/{name}": image for name, image in observation.images.items()}
    return {"proprio": observation.proprio, **images}


def _observation(arrays: Mapping[str, np.ndarray]) -> Observation:
    images = {n.removeprefix("image/"): v for n, v in arrays.items() if n.startswith("image/")}
    return Observation(images=images, proprio=arrays["proprio"])
