"""The bolt bench as one object: place anything anywhere, look at it, read its true state.

Everything that goes in or comes out is in the robot's BASE axes, except where a name says *table*.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from hildaft.robots.bolt_sim.control import ArmControl
from hildaft.robots.bolt_sim.geometry import (
    quaternion_from_rotation,
    rotation_about,
    rotation_from_vector,
)
from hildaft.robots.bolt_sim.gl import Offscreen, mujoco
from hildaft.robots.bolt_sim.model import (
    HEAD_SIZE,
    LOOKS,
    WRIST_SIZE,
    RobotLook,
    RobotName,
    build_mjcf,
)
from hildaft.types import ActionScale, HilDaftError, SceneState

CAMERAS: Final = ("wrist", "head")
MAX_BOLTS: Final = 4
_PARK_M: Final = np.array([-2.0, 2.0, 0.5])


@dataclass(frozen=True, slots=True)
class Projection:
    """Where points appear in a camera's image."""

    uv: Float64[np.ndarray, "k 2"]
    """Right and down, 0 to 1 across the image; meaningless where the point is behind the camera."""
    inside: Bool[np.ndarray, " k"]
    """In front of the camera and inside the image (not: unoccluded)."""
    depth_m: Float64[np.ndarray, " k"]
    """Distance along the camera's axis; negative behind it."""


@final
class BoltScene:
    """Model, data, arm control and cameras of one bench; the tasks differ only in where things are."""

    def __init__(
        self,
        robot: RobotName | RobotLook,
        bolts: int = 1,
        scale: ActionScale | None = None,
    ) -> None:
        if not isinstance(robot, RobotLook) and robot not in LOOKS:
            msg = f"bolt bench robot={robot!r}: A or B is allowed"
            raise HilDaftError(msg)
        if not 1 <= bolts <= MAX_BOLTS:
            msg = f"bolt bench bolts={bolts}: 1 to {MAX_BOLTS} is allowed"
            raise HilDaftError(msg)
        look = robot if isinstance(robot, RobotLook) else LOOKS[robot]
        self.bolts: Final = bolts
        self.active_bolt = 0
        """Index of the bolt that `scene_state` speaks of."""
        self.model: Final = mujoco.MjModel.from_xml_string(build_mjcf(look, bolts))
        self.data: Final = mujoco.MjData(self.model)
        self.control: Final = ArmControl(self.model, self.data, scale or ActionScale())
        self._offscreen: Offscreen | None = None
        self._base = np.array(look.base_position_m)
        self._base_rotation = rotation_about(2, look.base_yaw_rad)
        self.base_yaw_rad: Final = look.base_yaw_rad
        model = self.model
        self._pads = tuple(int(model.geom(f"pad_{side}").id) for side in ("right", "left"))
        self._bolt_bodies = tuple(int(model.body(f"bolt{i}").id) for i in range(bolts))
        self._bolt_qpos = tuple(int(model.joint(f"bolt{i}").qposadr[0]) for i in range(bolts))
        self._bolt_dof = tuple(int(model.joint(f"bolt{i}").dofadr[0]) for i in range(bolts))
        self._fixture = int(model.body("fixture").mocapid[0])
        self._spot = int(model.body("spot").mocapid[0])
        self._cameras = {name: int(model.camera(name).id) for name in CAMERAS}
        self._look = (
            model.cam_pos.copy(),
            model.cam_quat.copy(),
            model.geom_rgba.copy(),
            model.light_diffuse.copy(),
            np.array(model.vis.headlight.ambient),
            np.array(model.vis.headlight.diffuse),
        )

    # Frames.

    def base_from_table(self, points_m: Float64[np.ndarray, "*k 3"]) -> Float64[np.ndarray, "*k 3"]:
        """Points of the table frame in base axes."""
        return (points_m - self._base) @ self._base_rotation

    def table_from_base(self, points_m: Float64[np.ndarray, "*k 3"]) -> Float64[np.ndarray, "*k 3"]:
        """Points of the base axes in the table frame."""
        return points_m @ self._base_rotation.T + self._base

    def base_rotation_from_table(
        self, rotation: Float64[np.ndarray, "3 3"]
    ) -> Float64[np.ndarray, "3 3"]:
        """A rotation of the table frame in base axes."""
        return self._base_rotation.T @ rotation

    def table_rotation_from_base(
        self, rotation: Float64[np.ndarray, "3 3"]
    ) -> Float64[np.ndarray, "3 3"]:
        """A rotation of the base axes in the table frame."""
        return self._base_rotation @ rotation

    # Placing.

    def place(
        self,
        ee_position_m: Float64[np.ndarray, "3"],
        ee_rotation: Float64[np.ndarray, "3 3"],
        jaw_opening_m: float,
        bolt_position_m: Float64[np.ndarray, "3"],
        bolt_rotation: Float64[np.ndarray, "3 3"],
        slot_position_m: Float64[np.ndarray, "3"],
        slot_yaw_rad: float,
        spot_position_m: Float64[np.ndarray, "3"],
        jaw_closed: bool = False,
    ) -> float:
        """Puts everything where it is told, without physics (base axes).

        Returns:
            The inverse kinematics' residual (m and rad together); above 1e-3 the arm does not reach
            the pose and the caller should draw another.
        """
        mujoco.mj_resetData(self.model, self.data)
        for index in range(self.bolts):
            self.park_bolt(index)
        self.place_bolt(0, bolt_position_m, bolt_rotation)
        self.active_bolt = 0
        self.place_fixture(slot_position_m, slot_yaw_rad)
        self.place_spot(spot_position_m)
        residual = self.control.teleport(
            self.table_from_base(ee_position_m),
            self.table_rotation_from_base(ee_rotation),
            jaw_opening_m,
            jaw_closed,
        )
        self.settle()
        return residual

    def place_bolt(
        self,
        index: int,
        position_m: Float64[np.ndarray, "3"],
        rotation: Float64[np.ndarray, "3 3"],
    ) -> None:
        """Puts one bolt at rest at a pose (base axes); takes effect at the next step, `place` or `settle`."""
        self._set_bolt(
            index, self.table_from_base(position_m), self.table_rotation_from_base(rotation), 0.0
        )

    def park_bolt(self, index: int) -> None:
        """Takes one bolt out of sight and of the physics' way."""
        self._set_bolt(index, _PARK_M + np.array([0.0, 0.3 * index, 0.0]), np.eye(3), 1.0)

    def _set_bolt(
        self,
        index: int,
        position_m: Float64[np.ndarray, "3"],
        rotation: Float64[np.ndarray, "3 3"],
        weightless: float,
    ) -> None:
        start, dof = self._bolt_qpos[index], self._bolt_dof[index]
        self.data.qpos[start : start + 3] = position_m
        self.data.qpos[start + 3 : start + 7] = quaternion_from_rotation(rotation)
        self.data.qvel[dof : dof + 6] = 0.0
        self.model.body_gravcomp[self._bolt_bodies[index]] = weightless

    def place_fixture(self, slot_position_m: Float64[np.ndarray, "3"], yaw_rad: float) -> None:
        """Moves the rail so that its slot's mouth is at a point (base axes)."""
        self.data.mocap_pos[self._fixture] = self.table_from_base(slot_position_m)
        turn = rotation_about(2, yaw_rad + self.base_yaw_rad)
        self.data.mocap_quat[self._fixture] = quaternion_from_rotation(turn)

    def place_spot(self, position_m: Float64[np.ndarray, "3"]) -> None:
        """Moves the marked spot (base axes)."""
        self.data.mocap_pos[self._spot] = self.table_from_base(position_m)

    def settle(self) -> None:
        """Brings contacts and what cameras see up to date with where things were put."""
        mujoco.mj_forward(self.model, self.data)

    # Looking.

    def render(self) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """Images of both cameras: wrist 128x128, head 256x256."""
        if self._offscreen is None:
            self._offscreen = Offscreen(self.model, HEAD_SIZE)
        wrist = self._offscreen.render(self.data, self._cameras["wrist"], WRIST_SIZE)
        head = self._offscreen.render(self.data, self._cameras["head"], HEAD_SIZE)
        return {"wrist": wrist, "head": head}

    def project(self, points_m: Float64[np.ndarray, "k 3"]) -> dict[str, Projection]:
        """Where points (base axes) appear in each camera's image."""
        points = self.table_from_base(points_m)
        result: dict[str, Projection] = {}
        for name, camera in self._cameras.items():
            axes = self.data.cam_xmat[camera].reshape(3, 3)
            local = (points - self.data.cam_xpos[camera]) @ axes
            depth = -local[:, 2]
            reach = np.tan(np.deg2rad(self.model.cam_fovy[camera]) / 2)
            safe = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
            uv = 0.5 + 0.5 * np.stack([local[:, 0], -local[:, 1]], axis=1) / (safe[:, None] * reach)
            inside = (depth > 0) & ((uv >= 0) & (uv <= 1)).all(axis=1)
            result[name] = Projection(uv=uv, inside=inside, depth_m=depth)
        return result

    def randomise_look(self, rng: np.random.Generator, strength: float = 1.0) -> None:
        """Jitters cameras, colours and light; `strength` scales it (1: as the pretraining uses).

        Head camera 6 mm and 10 mrad, wrist camera 1 mm and 8 mrad, colours 10 %, light 12 %, all
        uniform either way.
        """
        self.reset_look()
        model = self.model
        for name, shift, turn in (("head", 0.006, 0.010), ("wrist", 0.001, 0.008)):
            camera = self._cameras[name]
            model.cam_pos[camera] += rng.uniform(-shift, shift, 3) * strength
            matrix = np.zeros(9)
            mujoco.mju_quat2Mat(matrix, model.cam_quat[camera])
            twist = rotation_from_vector(rng.uniform(-turn, turn, 3) * strength)
            model.cam_quat[camera] = quaternion_from_rotation(twist @ matrix.reshape(3, 3))
        colours, group = np.unique(model.geom_rgba, axis=0, return_inverse=True)
        factor = 1.0 + rng.uniform(-0.1, 0.1, (len(colours), 3)) * strength
        colours[:, :3] = np.clip(colours[:, :3] * factor, 0.0, 1.0)
        model.geom_rgba[:] = colours[group.reshape(-1)]
        light = 1.0 + rng.uniform(-0.12, 0.12, 3) * strength
        model.light_diffuse[:] *= light[0]
        model.vis.headlight.ambient = np.array(model.vis.headlight.ambient) * light[1]
        model.vis.headlight.diffuse = np.array(model.vis.headlight.diffuse) * light[2]
        mujoco.mj_camlight(model, self.data)

    def reset_look(self) -> None:
        """Undoes `randomise_look`."""
        model = self.model
        model.cam_pos[:], model.cam_quat[:], model.geom_rgba[:], model.light_diffuse[:] = (
            self._look[:4]
        )
        model.vis.headlight.ambient, model.vis.headlight.diffuse = self._look[4:]
        mujoco.mj_camlight(model, self.data)

    # Reading.

    def touching(self, index: int) -> tuple[bool, bool, bool]:
        """Whether a bolt touches the right pad, the left pad, and anything else."""
        contact = self.data.contact
        geoms = contact.geom
        bodies = self.model.geom_bodyid[geoms]
        mine = (bodies == self._bolt_bodies[index]).any(axis=1) & (contact.dist < 1e-4)
        others = {int(geom) for geom in geoms[mine].reshape(-1)}
        others = {g for g in others if self.model.geom_bodyid[g] != self._bolt_bodies[index]}
        right, left = (pad in others for pad in self._pads)
        return right, left, bool(others - set(self._pads))

    def bolt_pose_table(
        self, index: int
    ) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3 3"]]:
        """A bolt's pose in the table frame."""
        body = self._bolt_bodies[index]
        return self.data.xpos[body].copy(), self.data.xmat[body].reshape(3, 3).copy()

    def bolt_speed(self, index: int) -> tuple[float, float]:
        """A bolt's linear (m/s) and angular (rad/s) speed."""
        dof = self._bolt_dof[index]
        velocity = self.data.qvel[dof : dof + 6]
        return float(np.linalg.norm(velocity[:3])), float(np.linalg.norm(velocity[3:]))

    @property
    def jaw_opening_m(self) -> float:
        """Distance between the pads."""
        return float(max(0.0, self.data.qpos[7] + self.data.qpos[8]))

    @property
    def spot_position_table_m(self) -> Float64[np.ndarray, "3"]:
        """Centre of the marked spot, table frame."""
        return self.data.mocap_pos[self._spot].copy()

    @property
    def slot_position_table_m(self) -> Float64[np.ndarray, "3"]:
        """Slot mouth, table frame (the rail runs along the table's +y)."""
        return self.data.mocap_pos[self._fixture].copy()

    def scene_state(self, task: str, success: bool) -> SceneState:
        """The true state, in base axes."""
        position, rotation = self.bolt_pose_table(self.active_bolt)
        right, left, _ = self.touching(self.active_bolt)
        slot = np.zeros(9)
        mujoco.mju_quat2Mat(slot, self.data.mocap_quat[self._fixture])
        return SceneState(
            task=task,
            ee_position_m=self.base_from_table(self.control.tcp_position_m),
            ee_rotation=self.base_rotation_from_table(self.control.tcp_rotation),
            jaw_opening_m=self.jaw_opening_m,
            jaw_closed=self.control.closed,
            bolt_position_m=self.base_from_table(position),
            bolt_rotation=self.base_rotation_from_table(rotation),
            bolt_held=right and left,
            slot_position_m=self.base_from_table(self.data.mocap_pos[self._fixture].copy()),
            slot_rotation=self.base_rotation_from_table(slot.reshape(3, 3)),
            spot_position_m=self.base_from_table(self.data.mocap_pos[self._spot].copy()),
            success=success,
        )

    def close(self) -> None:
        """Frees the GL context."""
        if self._offscreen is not None:
            self._offscreen.close()
            self._offscreen = None
