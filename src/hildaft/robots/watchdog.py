"""A robot in a process of its own, which holds it when nobody commands it any more.

Whatever happens to the worker (killed, stopped, its policy frozen) or to a camera inside `step`, the process that
owns the robot goes on and commands a hold. It learns of a dead worker at once, because their pipe closes, and of a
frozen one because the next command does not come.
"""

import contextlib
import json
import multiprocessing
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, cast, final

import numpy as np
from jaxtyping import Float64
from safetensors.numpy import load as load_safetensors

from hildaft.robots.robot_process import ANSWER_S, END_OF_HEAD, serve
from hildaft.types import (
    Action,
    ActionScale,
    HilDaftError,
    Observation,
    Robot,
    SceneState,
    StepResult,
    StoppedError,
)

HOLD_AFTER_S: Final = 0.17
"""Silence after which the robot is held: 1.7 control periods, so that the hold comes within 200 ms."""
RESET_S: Final = 120.0
"""A reset may move the arm, or wait for a person; starting the robot may take as long."""


@final
class WatchedRobot:
    """Implements `Robot` on a robot that lives in a process of its own; a context manager.

    The watch begins with an episode's first step and ends with `stop`. A command that comes after a hold is
    executed as any other. Methods other than `stop` and `stop_reset` wait for one another.

    Args:
        make: makes the robot, in its process; has to be importable there.
        hold_after_s: silence (s) after which the robot is held.

    Raises:
        HilDaftError: the robot cannot be made, or does not answer; from every method.
    """

    def __init__(self, make: Callable[[], Robot], *, hold_after_s: float = HOLD_AFTER_S) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        orders, self._orders = context.Pipe(duplex=False)
        self._process = context.Process(
            target=serve, args=(make, theirs, orders, hold_after_s), name="robot", daemon=True
        )
        self._process.start()
        theirs.close()
        orders.close()
        self._lock, self._order = threading.Lock(), threading.Lock()
        self._asked, self._answered, self._reset = 0, -1, 0
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
        """Leaves the arm holding still, and ends the watch until the next step; what is under way ends at once."""
        if not self._process.is_alive():
            return
        if self._answered < self._asked:
            self._end_motion()
        self._ask("stop", ANSWER_S)

    def stop_reset(self) -> None:
        """Ends a reset that is under way, which then raises StoppedError; from any thread, waits for nothing."""
        if self._answered < self._reset:
            self._end_motion()

    def _end_motion(self) -> None:
        # Past the requests, which a reset may hold up for two minutes.
        with self._order, contextlib.suppress(OSError):
            self._orders.send_bytes(str(self._asked).encode())

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
        if self._answered < self._asked:
            self._end_motion()
        self._orders.close()
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
            self._asked += 1
            if what == "reset":
                self._reset = self._asked
            request = {"what": what, "number": self._asked, **values}
            try:
                self._connection.send_bytes(json.dumps(request).encode())
            except OSError as error:
                msg = "robot: its process has ended; it was stopped then, start the worker again"
                raise HilDaftError(msg) from error
            return self._answer(patience_s)

    def _answer(self, patience_s: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        values, arrays = self._receive(patience_s)
        while self._answered < self._asked:
            # Ctrl-C came in between: an answer nobody waited for.
            values, arrays = self._receive(patience_s)
        if "error" in values:
            raise (StoppedError if values.get("stopped") else HilDaftError)(values["error"])
        return values, arrays

    def _receive(self, patience_s: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        try:
            if not self._connection.poll(patience_s):
                msg = (
                    f"robot: no answer within {patience_s:.0f} s, it was told to hold; check its cameras and its "
                    "connection, then start the worker again"
                )
                self._process.kill()
                self._process.join(1.0)
                raise HilDaftError(msg)
            head, _, body = self._connection.recv_bytes().partition(END_OF_HEAD)
        except (EOFError, OSError) as error:
            msg = "robot: its process has ended; it was stopped then, start the worker again"
            raise HilDaftError(msg) from error
        values = cast(dict[str, Any], json.loads(head))
        self._answered = int(values.pop("number"))
        return values, load_safetensors(body)


def _observation(arrays: Mapping[str, np.ndarray]) -> Observation:
    images = {n.removeprefix("image/"): v for n, v in arrays.items() if n.startswith("image/")}
    return Observation(images=images, proprio=arrays["proprio"])
