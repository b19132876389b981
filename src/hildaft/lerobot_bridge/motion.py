"""From an arm's own keys to the pose of its end effector, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Float64

from hildaft.lerobot_bridge.config import JointKeys, LeRobotConfig, PoseKeys
from hildaft.robots.kinematics import Chain
from hildaft.robots.pose import Pose, from_euler, from_vector, to_euler, to_vector


@runtime_checkable
class Motion(Protocol):
    """How an arm says where it is, and is told where to go."""

    def pose(self, values: Mapping[str, float]) -> Pose:
        """The end effector's pose (base axes) for values of the arm's keys."""
        ...

    def values(self, goal: Pose, near: Mapping[str, float]) -> dict[str, float]:
        """Values that lead towards a goal, at most one control step away from those in `near`."""
        ...


def motion_of(config: LeRobotConfig) -> Motion:
    """Poses or joints, as configured; raises HilDaftError where the URDF does not fit."""
    if config.pose_keys is not None:
        return PoseMotion(config.pose_keys)
    assert config.joint_keys is not None
    return JointMotion(config.joint_keys)


@final
class PoseMotion:
    """Implements `Motion` for arms that are commanded by poses."""

    def __init__(self, config: PoseKeys) -> None:
        self._config: Final = config

    def pose(self, values: Mapping[str, float]) -> Pose:
        """The pose as the keys say it; an orientation that is not said is the identity."""
        config = self._config
        position = np.array([values[key] for key in config.position], dtype=np.float64)
        turn = np.array([values[key] for key in config.rotation] or [0.0] * 3, dtype=np.float64)
        read = from_vector if config.rotation_is == "vector" else from_euler
        return Pose(position, read(turn))

    def values(self, goal: Pose, near: Mapping[str, float]) -> dict[str, float]:
        """The goal in the arm's keys."""
        del near
        config = self._config
        said = dict(zip(config.position, map(float, goal.position_m), strict=True))
        if config.rotation:
            write = to_vector if config.rotation_is == "vector" else to_euler
            said |= zip(config.rotation, map(float, write(goal.quaternion)), strict=True)
        return said


@final
class JointMotion:
    """Implements `Motion` for arms that are commanded by joint positions."""

    def __init__(self, config: JointKeys) -> None:
        self._config: Final = config
        names = tuple(joint.joint for joint in config.joints)
        self._chain: Final = Chain.read(Path(config.urdf), config.tip, names)
        self._unit: Final = np.array([joint.unit_rad for joint in config.joints])
        self._offset: Final = np.array([joint.offset_rad for joint in config.joints])

    def pose(self, values: Mapping[str, float]) -> Pose:
        """Forward kinematics."""
        return self._chain.pose(self._joints(values))

    def values(self, goal: Pose, near: Mapping[str, float]) -> dict[str, float]:
        """Inverse kinematics from the joints as they are, cut to the largest step of a joint."""
        config, here = self._config, self._joints(near)
        step = self._chain.towards(here, goal, config.turn_weight_m) - here
        largest = float(np.abs(step).max())
        step *= min(1.0, config.max_step_rad / max(largest, 1e-12))
        units = (here + step - self._offset) / self._unit
        return {joint.key: float(u) for joint, u in zip(config.joints, units, strict=True)}

    def _joints(self, values: Mapping[str, float]) -> Float64[np.ndarray, " j"]:
        units = np.array([values[joint.key] for joint in self._config.joints], dtype=np.float64)
        return self._offset + self._unit * units
