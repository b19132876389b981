"""A serial arm from its URDF: forward kinematics, and small steps of the joints towards a pose. NumPy only."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, final

import numpy as np
from jaxtyping import Float64

from hildaft.robots.pose import Pose, from_euler, from_vector, matrix_of, multiply, turn_between
from hildaft.types import HilDaftError

Joints = Float64[np.ndarray, " j"]

_ITERATIONS: Final = 30
_DAMPING: Final = 0.01
"""Of the least squares, in metres: large enough that a stretched arm slows down instead of whipping round."""
_LARGEST_RAD: Final = 0.2
"""Per iteration and joint."""

_Kind: TypeAlias = Literal["fixed", "turning", "sliding"]
_KINDS: Final[dict[str, _Kind]] = {
    "fixed": "fixed",
    "revolute": "turning",
    "continuous": "turning",
    "prismatic": "sliding",
}


@dataclass(frozen=True, slots=True)
class _Link:
    name: str
    kind: _Kind
    offset_m: Float64[np.ndarray, "3"]
    turn: Float64[np.ndarray, "4"]
    axis: Float64[np.ndarray, "3"]
    low: float
    high: float


@final
class Chain:
    """The joints between an arm's base and its tip; angles in rad, slides in m.

    Args:
        links: from the base outwards.
        names: of the joints that move, in the order their values are given and taken.
    """

    def __init__(self, links: list[_Link], names: tuple[str, ...]) -> None:
        self._links = links
        self._index = {name: number for number, name in enumerate(names)}
        moving = {link.name: link for link in links if link.kind != "fixed"}
        self.low: Final = np.array([moving[name].low for name in names])
        self.high: Final = np.array([moving[name].high for name in names])

    @staticmethod
    def read(path: Path, tip: str, names: tuple[str, ...]) -> "Chain":
        """The chain from the root of a URDF to the link `tip`.

        Raises:
            HilDaftError: no such file or link, or its moving joints are not those named.
        """
        parents = {child: (joint, parent) for joint, parent, child in _joints_of(path)}
        links: list[_Link] = []
        link = tip
        while link in parents:
            joint, link = parents[link]
            links.insert(0, _link(path, joint))
        moving = {joint.name for joint in links if joint.kind != "fixed"}
        if not links or moving != set(names):
            found = ", ".join(sorted(moving)) or "none"
            msg = (
                f"URDF {path} tip={tip!r}: the joints from the base to it are {found}; name each of them once under"
                f" joints, found {', '.join(names)}"
            )
            raise HilDaftError(msg)
        return Chain(links, names)

    def pose(self, joints: Joints) -> Pose:
        """Where the tip is, base frame."""
        return self._walk(joints)[0]

    def _walk(self, joints: Joints) -> tuple[Pose, list[tuple[_Link, Pose]]]:
        here = Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))
        frames: list[tuple[_Link, Pose]] = []
        for link in self._links:
            here = Pose(
                here.position_m + matrix_of(here.quaternion) @ link.offset_m,
                multiply(here.quaternion, link.turn),
            )
            if link.kind == "fixed":
                continue
            frames.append((link, here))
            value = float(joints[self._index[link.name]])
            if link.kind == "turning":
                turned = multiply(here.quaternion, from_vector(value * link.axis))
                here = Pose(here.position_m, turned)
            else:
                slid = matrix_of(here.quaternion) @ (value * link.axis)
                here = Pose(here.position_m + slid, here.quaternion)
        tip = Pose(here.position_m, here.quaternion / np.linalg.norm(here.quaternion))
        return tip, frames

    def jacobian(self, joints: Joints) -> Float64[np.ndarray, "6 j"]:
        """Velocity of the tip (m, then rad about base axes) per joint velocity."""
        return self._jacobian(*self._walk(joints))

    def _jacobian(self, tip: Pose, frames: list[tuple[_Link, Pose]]) -> Float64[np.ndarray, "6 j"]:
        columns = np.zeros((6, len(self.low)))
        for link, frame in frames:
            axis = matrix_of(frame.quaternion) @ link.axis
            column = columns[:, self._index[link.name]]
            if link.kind == "turning":
                column[:3], column[3:] = np.cross(axis, tip.position_m - frame.position_m), axis
            else:
                column[:3] = axis
        return columns

    def towards(self, joints: Joints, goal: Pose, turn_weight_m: float) -> Joints:
        """Joint values near these whose tip is at the goal, or as near as the arm comes, within the joints' limits.

        Args:
            joints: where to start; a step of some millimetres is solved in a few iterations.
            goal: base frame.
            turn_weight_m: metres that one radian of orientation counts for; small for arms of fewer than six joints,
                which cannot have every orientation.
        """
        weights = np.array([1.0] * 3 + [turn_weight_m] * 3)
        values = np.clip(joints, self.low, self.high)
        for _ in range(_ITERATIONS):
            here, frames = self._walk(values)
            error = weights * np.concatenate(
                [goal.position_m - here.position_m, turn_between(here.quaternion, goal.quaternion)]
            )
            if float(np.linalg.norm(error)) < 1e-5:
                break
            jacobian = weights[:, None] * self._jacobian(here, frames)
            # Joints at their limit that would leave it are taken out, or they would eat up the step.
            gain = jacobian.T @ error
            stuck = ((values <= self.low) & (gain < 0)) | ((values >= self.high) & (gain > 0))
            jacobian[:, stuck] = 0.0
            damping = _DAMPING * min(1.0, float(np.linalg.norm(error)) / 0.05)
            square = jacobian @ jacobian.T + (damping**2 + 1e-12) * np.eye(6)
            step = jacobian.T @ np.linalg.solve(square, error)
            step *= min(1.0, _LARGEST_RAD / max(1e-12, float(np.abs(step).max())))
            values = np.clip(values + step, self.low, self.high)
        return values


def _joints_of(path: Path) -> list[tuple[ET.Element, str, str]]:
    try:
        root = ET.parse(path).getroot()
    except OSError as error:
        msg = f"URDF {path}: {error.strerror}; give its place relative to the YAML file"
        raise HilDaftError(msg) from error
    except ET.ParseError as error:
        msg = f"URDF {path}: no XML ({error}); run xacro on it first if it is a xacro file"
        raise HilDaftError(msg) from error
    found: list[tuple[ET.Element, str, str]] = []
    for joint in root.findall("joint"):
        ends = [joint.find("parent"), joint.find("child")]
        names = [end.get("link", "") if end is not None else "" for end in ends]
        found.append((joint, names[0], names[1]))
    return found


def _link(path: Path, joint: ET.Element) -> _Link:
    name, kind = joint.get("name", ""), _KINDS.get(joint.get("type", ""))
    if kind is None:
        msg = f"URDF {path} joint {name!r} type={joint.get('type')!r}: {', '.join(_KINDS)} are allowed"
        raise HilDaftError(msg)
    if joint.find("mimic") is not None:
        msg = f"URDF {path} joint {name!r}: it mimics another and lies before the tip; choose a tip before it"
        raise HilDaftError(msg)
    origin, axis, limit = joint.find("origin"), joint.find("axis"), joint.find("limit")
    low, high = -np.inf, np.inf
    if limit is not None and joint.get("type") != "continuous":
        low, high = (_numbers(path, name, limit.get(end, "0"), 1)[0] for end in ("lower", "upper"))
    along = _numbers(path, name, "1 0 0" if axis is None else axis.get("xyz", "1 0 0"), 3)
    length = float(np.linalg.norm(along))
    place = {} if origin is None else origin.attrib
    return _Link(
        name,
        kind,
        _numbers(path, name, place.get("xyz", "0 0 0"), 3),
        from_euler(_numbers(path, name, place.get("rpy", "0 0 0"), 3)),
        along / length if length > 0 else along,
        float(low),
        float(high),
    )


def _numbers(path: Path, joint: str, text: str, count: int) -> Float64[np.ndarray, " n"]:
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        values = np.zeros(0)
    if len(values) != count or not np.isfinite(values).all():
        msg = f"URDF {path} joint {joint!r}: {count} finite numbers are needed, found {text!r}"
        raise HilDaftError(msg)
    return values
