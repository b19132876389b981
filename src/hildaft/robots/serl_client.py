"""The routes of HIL-SERL's robot server, each with a time-out and a check of what comes back.

The server knows no authentication: use it on a trusted network only.
"""

import contextlib
import http.client
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, final
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Float64

from hildaft.robots.guard import RobotError
from hildaft.types import HilDaftError

Numbers = Float64[np.ndarray, " n"]

_MAX_REPLY_BYTES: Final = 1 << 16
GripperCommand: TypeAlias = Literal["open", "close", "close_slow", "activate", "reset"]
_GRIPPER_ROUTES: Final[dict[GripperCommand, str]] = {
    "open": "/open_gripper",
    "close": "/close_gripper",
    "close_slow": "/close_gripper_slow",
    "activate": "/activate_gripper",
    "reset": "/reset_gripper",
}
PARAMETER_RANGES: Final[dict[str, float]] = {
    "translational_stiffness": 6000.0,
    "translational_damping": 400.0,
    "rotational_stiffness": 300.0,
    "rotational_damping": 30.0,
    "nullspace_stiffness": 100.0,
    "joint1_nullspace_stiffness": 100.0,
    "translational_Ki": 100.0,
    "rotational_Ki": 100.0,
    **{
        f"{kind}_clip_{sign}{axis}": 0.1
        for kind in ("translational", "rotational")
        for sign in ("", "neg_")
        for axis in "xyz"
    },
}
"""Largest value of each impedance parameter; the server clamps larger ones without a word."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """Reply of /getstate, base frame."""

    pose: Float64[np.ndarray, "7"]
    """Metres and the quaternion in the server's order."""
    velocity: Float64[np.ndarray, "6"]
    force_n: Float64[np.ndarray, "3"]
    torque_nm: Float64[np.ndarray, "3"]
    joints_rad: Float64[np.ndarray, "7"]
    joint_velocity: Float64[np.ndarray, "7"]
    jacobian: Float64[np.ndarray, "6 7"]
    gripper: float
    """1 open, 0 closed; NaN where the server has no gripper."""


@final
class SerlClient:
    """One server. Every request has a deadline for the whole exchange; nothing is retried here.

    Args:
        url: such as `http://127.0.0.1:5000`.
        timeout_s: for every route but the joint reset.
        sink: where given, requests that change something are described to it and not sent (dry run).

    Raises:
        HilDaftError: the URL is not one of a server.
    """

    def __init__(
        self, url: str, timeout_s: float = 0.2, sink: Callable[[str], None] | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            msg = f"url={url!r}: http://HOST:PORT of the robot server is allowed"
            raise HilDaftError(msg)
        self.url: Final = url
        self._host, self._port = parts.hostname, parts.port or 5000
        self._timeout_s, self._sink = timeout_s, sink

    # Reading.

    def state(self) -> ServerState:
        """Everything at once; raises RobotError."""
        reply = self._read("/getstate")
        return ServerState(
            pose=_numbers(reply, "pose", 7),
            velocity=_numbers(reply, "vel", 6),
            force_n=_numbers(reply, "force", 3),
            torque_nm=_numbers(reply, "torque", 3),
            joints_rad=_numbers(reply, "q", 7),
            joint_velocity=_numbers(reply, "dq", 7),
            jacobian=_numbers(reply, "jacobian", 42).reshape(6, 7),
            gripper=float(_numbers(reply, "gripper_pos", 1)[0]),
        )

    def state_by_parts(self) -> ServerState:
        """The same from the single routes: /getstate of a server without a gripper answers 500."""
        return ServerState(
            pose=self.pose(),
            velocity=_numbers(self._read("/getvel"), "vel", 6),
            force_n=_numbers(self._read("/getforce"), "force", 3),
            torque_nm=_numbers(self._read("/gettorque"), "torque", 3),
            joints_rad=_numbers(self._read("/getq"), "q", 7),
            joint_velocity=_numbers(self._read("/getdq"), "dq", 7),
            jacobian=_numbers(self._read("/getjacobian"), "jacobian", 42).reshape(6, 7),
            gripper=math.nan,
        )

    def pose(self) -> Float64[np.ndarray, "7"]:
        """Metres and the quaternion in the server's order; raises RobotError."""
        return _numbers(self._read("/getpos"), "pose", 7)

    def pose_euler(self) -> Float64[np.ndarray, "6"]:
        """Metres and extrinsic x, y, z angles (rad); raises RobotError."""
        return _numbers(self._read("/getpos_euler"), "pose", 6)

    def gripper(self) -> float:
        """1 open, 0 closed; raises RobotError."""
        return float(_numbers(self._read("/get_gripper"), "gripper", 1)[0])

    # Changing.

    def send_pose(self, pose: Sequence[float]) -> None:
        """Sets the equilibrium pose; raises RobotError."""
        self._change("/pose", {"arr": [float(value) for value in pose]})

    def update_parameters(self, values: Mapping[str, float]) -> None:
        """Sets impedance parameters; raises HilDaftError for one that is unknown or out of range, else RobotError."""
        for name, value in values.items():
            high = PARAMETER_RANGES.get(name)
            if high is None or not 0.0 <= value <= high:
                allowed = (
                    f"0 to {high}" if high is not None else f"one of {', '.join(PARAMETER_RANGES)}"
                )
                msg = f"impedance parameter {name}={value}: {allowed} is allowed"
                raise HilDaftError(msg)
        self._change("/update_param", dict(values))

    def command_gripper(self, command: GripperCommand) -> None:
        """Runs one of the gripper routes; may take a second. Raises RobotError."""
        self._change(_GRIPPER_ROUTES[command], None, timeout_s=max(5.0, self._timeout_s))

    def move_gripper(self, position: int) -> None:
        """Moves the jaws to 0 .. 255: a Robotiq counts from open, a Franka hand from closed. Raises RobotError."""
        if not 0 <= position <= 255:
            msg = f"gripper position={position}: 0 to 255 is allowed"
            raise HilDaftError(msg)
        self._change(
            "/move_gripper", {"gripper_pos": position}, timeout_s=max(5.0, self._timeout_s)
        )

    def clear_errors(self) -> None:
        """Leaves a reflex stop behind: only with the arm at rest and a person looking. Raises RobotError."""
        self._change("/clearerr", None)

    def start_impedance(self) -> None:
        """Starts the impedance controller; raises RobotError."""
        self._change("/startimp", None, timeout_s=max(10.0, self._timeout_s))

    def stop_impedance(self) -> None:
        """Stops the impedance controller; raises RobotError."""
        self._change("/stopimp", None, timeout_s=max(10.0, self._timeout_s))

    def reset_joints(self, timeout_s: float = 60.0) -> None:
        """Drives to the joint target and comes back when it is reached, up to 30 s; raises RobotError."""
        self._change("/jointreset", None, timeout_s=timeout_s)

    def set_load(self, mass_kg: float, centre_m: Sequence[float], inertia: Sequence[float]) -> None:
        """Tells the controller what the hand weighs; raises RobotError."""
        load = {
            "mass": mass_kg,
            "F_x_center_load": [float(value) for value in centre_m],
            "load_inertia": [float(value) for value in inertia],
        }
        self._change("/set_load", load)

    # The wire.

    def _read(self, route: str) -> dict[str, Any]:
        body = self._exchange(route, None, self._timeout_s)
        try:
            reply = json.loads(body)
        except ValueError as error:
            raise self._fault(route, f"no whole JSON ({len(body)} bytes)") from error
        if not isinstance(reply, dict):
            raise self._fault(route, f"an object is expected, found {type(reply).__name__}")
        return {"route": route, **reply}

    def _change(
        self, route: str, payload: Mapping[str, Any] | None, timeout_s: float | None = None
    ) -> None:
        if self._sink is not None:
            self._sink(f"POST {route} {json.dumps(payload)}" if payload else f"POST {route}")
            return
        self._exchange(route, payload, self._timeout_s if timeout_s is None else timeout_s)

    def _exchange(self, route: str, payload: Mapping[str, Any] | None, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        guard: threading.Timer | None = None
        try:
            connection.connect()
            # A server that drips would keep each read within its own time-out: this one ends the whole exchange.
            guard = threading.Timer(timeout_s, _shut, (connection.sock,))
            guard.daemon = True
            guard.start()
            headers = {"Content-Type": "application/json"}
            connection.request("POST", route, json.dumps(payload or {}), headers)
            with contextlib.closing(connection.getresponse()) as response:
                body, status = response.read(_MAX_REPLY_BYTES + 1), response.status
        except (OSError, http.client.HTTPException) as error:
            late = time.monotonic() >= deadline - 0.005
            reason = (
                f"no answer within {timeout_s} s" if late else str(error) or type(error).__name__
            )
            raise self._fault(route, reason) from error
        finally:
            if guard is not None:
                guard.cancel()
            connection.close()
        if time.monotonic() > deadline:
            raise self._fault(route, f"no answer within {timeout_s} s")
        if status != 200:
            raise self._fault(route, f"HTTP {status}")
        if len(body) > _MAX_REPLY_BYTES:
            raise self._fault(route, f"more than {_MAX_REPLY_BYTES} bytes")
        return body

    def _fault(self, route: str, reason: str) -> RobotError:
        return RobotError(
            f"robot server {self.url}{route}: {reason}; the arm holds its last pose. Look at the arm and at the"
            " server's terminal, then start again"
        )


def _shut(sock: socket.socket) -> None:
    # shutdown wakes a blocked read; close alone does not.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _numbers(reply: Mapping[str, Any], key: str, count: int) -> Numbers:
    route = reply["route"]
    if key not in reply:
        msg = (
            f"robot server {route}: {key!r} is missing from the reply; the arm holds its last pose"
        )
        raise RobotError(msg)
    try:
        values = np.asarray(reply[key], dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        msg = f"robot server {route}: {key!r} holds no numbers; the arm holds its last pose"
        raise RobotError(msg) from error
    if len(values) != count or not np.isfinite(values).all():
        found = str(reply[key])[:100]
        msg = (
            f"robot server {route}: {key!r} needs {count} finite numbers, found {found};"
            " the arm holds its last pose"
        )
        raise RobotError(msg)
    return values
