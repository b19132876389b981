"""Cartesian control of the arm: commanded pose, damped least-squares inverse kinematics, ramp."""

import math
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float64

from hildaft.robots.bolt_sim.geometry import (
    quaternion_from_rotation,
    rotation_from_vector,
    vector_from_rotation,
)
from hildaft.robots.bolt_sim.gl import MjData, MjModel, mujoco
from hildaft.robots.bolt_sim.model import JAW_TRAVEL_M, SUBSTEPS
from hildaft.types import ActionScale

HOME_JOINTS: Final = np.array([0.75, 0.275, -0.73, -2.37, 0.33, 2.55, 0.19])
"""Posture the redundant joint is drawn to, rad: elbow out, or tilting the hand passes a singularity."""

WORKSPACE_LOW_M: Final = np.array([0.28, -0.28, 0.008])
WORKSPACE_HIGH_M: Final = np.array([0.66, 0.34, 0.32])
"""Box the commanded TCP stays in, table frame."""

_LEASH_M: Final = 0.015
_LEASH_RAD: Final = 0.10
_RIDGE: Final = 0.01**2 * np.eye(6)
_CLOSE: Final = 1e-5
_NULL_PULL: Final = 0.05
_ARM: Final = slice(0, 7)


@final
class ArmControl:
    """Turns end effector actions into joint targets; all poses here are in the table frame."""

    def __init__(self, model: MjModel, data: MjData, scale: ActionScale) -> None:
        self._model = model
        self._data = data
        self._scratch = mujoco.MjData(model)
        self._site: int = model.site("tcp").id
        self._scale = scale
        base: int = model.body("base").id
        self._base_rotation: Float64[np.ndarray, "3 3"] = np.zeros((3, 3))
        matrix = np.zeros(9)
        mujoco.mju_quat2Mat(matrix, model.body_quat[base])
        self._base_rotation = matrix.reshape(3, 3)
        self._position: Float64[np.ndarray, 3] = np.zeros(3)
        self._rotation: Float64[np.ndarray, "3 3"] = np.eye(3)
        self.closed = False
        """Whether the jaws are commanded closed."""

    @property
    def tcp_position_m(self) -> Float64[np.ndarray, "3"]:
        """Measured TCP position."""
        return self._data.site_xpos[self._site].copy()

    @property
    def tcp_rotation(self) -> Float64[np.ndarray, "3 3"]:
        """Measured TCP rotation."""
        return self._data.site_xmat[self._site].reshape(3, 3).copy()

    @property
    def commanded(self) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3 3"]]:
        """Commanded TCP position and rotation, in the workspace and on the leash."""
        return self._position.copy(), self._rotation.copy()

    def solve(
        self,
        position_m: Float64[np.ndarray, "3"],
        rotation: Float64[np.ndarray, "3 3"],
        start: Float64[np.ndarray, "7"],
        iterations: int,
    ) -> tuple[Float64[np.ndarray, "7"], float]:
        """Joint angles for a TCP pose and the residual left (norm of m and rad together)."""
        scratch, model = self._scratch, self._model
        angles, place, frame = (
            scratch.qpos,
            scratch.site_xpos[self._site],
            scratch.site_xmat[self._site],
        )
        goal = quaternion_from_rotation(rotation)
        low, high = model.jnt_range[_ARM, 0], model.jnt_range[_ARM, 1]
        jacobian = np.zeros((6, model.nv))
        arm = jacobian[:, _ARM]
        error, measured = np.empty(6), np.empty(4)
        joints = start.copy()
        residual = np.inf
        for _ in range(iterations + 1):
            angles[_ARM] = joints
            mujoco.mj_kinematics(model, scratch)
            error[:3] = position_m - place
            mujoco.mju_mat2Quat(measured, frame)
            mujoco.mju_subQuat(error[3:], goal, measured)
            mujoco.mju_rotVecQuat(error[3:], error[3:].copy(), measured)
            residual = math.sqrt(float(error @ error))
            if residual < _CLOSE:
                break
            mujoco.mj_comPos(model, scratch)
            mujoco.mj_jacSite(model, scratch, jacobian[:3], jacobian[3:], self._site)
            # A full turn in one step diverges: limit what one iteration asks for.
            step = error * min(1.0, 0.4 / residual)
            home = _NULL_PULL * (HOME_JOINTS - joints)
            square = arm @ arm.T + _RIDGE
            joints = joints + home + arm.T @ np.linalg.solve(square, step - arm @ home)
            joints = np.minimum(np.maximum(joints, low), high)
        return joints, residual

    def teleport(
        self,
        position_m: Float64[np.ndarray, "3"],
        rotation: Float64[np.ndarray, "3 3"],
        jaw_opening_m: float,
        closed: bool,
    ) -> float:
        """Puts the arm at a pose without physics and commands it to stay; returns the residual."""
        joints, residual = self.solve(position_m, rotation, HOME_JOINTS, 60)
        half = float(np.clip(jaw_opening_m / 2, 0.0, JAW_TRAVEL_M))
        self._data.qpos[_ARM] = joints
        self._data.qpos[7:9] = half
        self._data.qvel[:9] = 0.0
        self._position, self._rotation = position_m.copy(), rotation.copy()
        self.closed = closed
        self._data.ctrl[_ARM] = joints
        self._data.ctrl[7:9] = 0.0 if closed else JAW_TRAVEL_M
        return residual

    def apply(self, action: Float[np.ndarray, "7"]) -> None:
        """Runs one control period (0.1 s) of an action in [-1, 1], base axes."""
        move = self._base_rotation @ np.asarray(action[:3], dtype=np.float64)
        turn = self._base_rotation @ np.asarray(action[3:6], dtype=np.float64)
        self._advance(move * self._scale.translation_m, turn * self._scale.rotation_rad)
        self.closed = bool(action[6] > 0)
        data = self._data
        start = data.ctrl[_ARM].copy()
        target, _ = self.solve(self._position, self._rotation, start, 4)
        ctrl = data.ctrl
        ctrl[7:9] = 0.0 if self.closed else JAW_TRAVEL_M
        change = (target - start) / SUBSTEPS
        # A staircase of targets shakes a held bolt loose: ramp over every physics step.
        for index in range(1, SUBSTEPS + 1):
            ctrl[_ARM] = start + index * change
            mujoco.mj_step(self._model, data)

    def hold(self) -> None:
        """Runs one control period with the arm and jaws staying as commanded."""
        still = np.zeros(7, dtype=np.float32)
        still[6] = 1.0 if self.closed else -1.0
        self.apply(still)

    def _advance(
        self, move_m: Float64[np.ndarray, "3"], turn_rad: Float64[np.ndarray, "3"]
    ) -> None:
        """Moves the commanded pose, inside the workspace and on a leash to the measured one."""
        wanted = np.clip(self._position + move_m, WORKSPACE_LOW_M, WORKSPACE_HIGH_M)
        lag = wanted - self.tcp_position_m
        distance, allowed = float(np.linalg.norm(lag)), _LEASH_M + float(np.linalg.norm(move_m))
        if distance > allowed:
            wanted = self.tcp_position_m + lag * (allowed / distance)
        self._position = wanted
        turned = rotation_from_vector(turn_rad) @ self._rotation
        measured = self.tcp_rotation
        twist = vector_from_rotation(turned @ measured.T)
        angle, limit = float(np.linalg.norm(twist)), _LEASH_RAD + float(np.linalg.norm(turn_rad))
        if angle > limit:
            turned = rotation_from_vector(twist * (limit / angle)) @ measured
        # Keep it a rotation: products of matrices drift.
        left, _, right = np.linalg.svd(turned)
        self._rotation = left @ right
