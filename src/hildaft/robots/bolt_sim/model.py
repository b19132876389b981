"""The bolt bench as MJCF text: arm, gripper, bolts, rail and table from primitive shapes alone.

World axes are the *table* frame (z = 0 on the table, +x away from the first robot, +y along the
rail); a robot's base stands in it with its own position and yaw. Lengths in m, angles in rad.
Contact, gain and shape numbers are those the project measured to hold a bolt without slipping.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

RobotName: TypeAlias = Literal["A", "B"]

SUBSTEPS: Final = 50
TIMESTEP_S: Final = 0.002
JAW_TRAVEL_M: Final = 0.015
"""How far each finger opens; the jaws then stand 30 mm apart."""
JAW_OPEN_M: Final = 2 * JAW_TRAVEL_M
BOLT_LENGTH_M: Final = 0.055
HEAD_HEIGHT_M: Final = 0.010
HEAD_HALF_FLATS_M: Final = 0.010
SHAFT_RADIUS_M: Final = 0.005
RAIL_LENGTH_M: Final = 0.125
WRIST_SIZE: Final = 128
HEAD_SIZE: Final = 256
SPOT_RADII_M: Final = (0.030, 0.021, 0.014)
"""The mark's disc, pale ring and core."""

Rgb: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotLook:
    """Where a robot stands and what it and its surroundings look like."""

    base_position_m: tuple[float, float, float]
    """Base in the table frame, m."""
    base_yaw_rad: float
    """Base yaw in the table frame, rad."""
    head_position_m: tuple[float, float, float]
    """Head camera in the table frame, m."""
    head_target_m: tuple[float, float, float]
    """Point the head camera looks at, m."""
    head_fovy_deg: float
    """Vertical field of view of the head camera, degrees."""
    wrist_offset_m: tuple[float, float, float]
    """Wrist camera's shift from its nominal mount, end effector axes, m."""
    wall_side: float
    """Side of the rail its wall stands on: -1 or 1 along the rail's x."""
    table: Rgb
    """Colours, 0-1."""
    table_line: Rgb
    floor: Rgb
    link: Rgb
    joint: Rgb
    hand: Rgb
    rail: Rgb
    wall: Rgb


LOOKS: Final[dict[RobotName, RobotLook]] = {
    "A": RobotLook(
        base_position_m=(0.0, -0.30, 0.0),
        base_yaw_rad=math.radians(25),
        head_position_m=(0.02, 0.14, 0.58),
        head_target_m=(0.485, -0.025, 0.05),
        head_fovy_deg=29.0,
        wrist_offset_m=(0.0, 0.0, 0.0),
        wall_side=-1.0,
        table=(0.56, 0.52, 0.47),
        table_line=(0.47, 0.43, 0.39),
        floor=(0.30, 0.34, 0.38),
        link=(0.86, 0.87, 0.88),
        joint=(0.22, 0.34, 0.50),
        hand=(0.16, 0.16, 0.18),
        rail=(0.20, 0.38, 0.80),
        wall=(0.72, 0.16, 0.13),
    ),
    "B": RobotLook(
        base_position_m=(0.0, -0.36, 0.06),
        base_yaw_rad=math.radians(45),
        head_position_m=(1.02, 0.20, 0.62),
        head_target_m=(0.47, -0.02, 0.05),
        head_fovy_deg=31.0,
        wrist_offset_m=(0.008, -0.008, 0.006),
        wall_side=1.0,
        table=(0.11, 0.16, 0.22),
        table_line=(0.20, 0.27, 0.34),
        floor=(0.40, 0.31, 0.22),
        link=(0.19, 0.20, 0.23),
        joint=(0.52, 0.27, 0.10),
        hand=(0.33, 0.36, 0.42),
        rail=(0.55, 0.62, 0.60),
        wall=(0.46, 0.22, 0.56),
    ),
}

_PAD: Final = (0.10, 0.58, 0.30)
_STEEL: Final = (0.34, 0.35, 0.37)
_SPOT: Final = (0.80, 0.20, 0.62)
_SPOT_RING: Final = (0.95, 0.92, 0.90)
_BOLT_SHAFT: Final = (0.92, 0.76, 0.30)
_BOLT_HEAD: Final = (0.80, 0.62, 0.16)

# Panda kinematics (public link lengths and limits): offset, rotation about x, limits, kp, damping.
_JOINTS: Final = (
    ((0.0, 0.0, 0.333), 0.0, (-2.8973, 2.8973), 4500, 1.0, 0.1),
    ((0.0, 0.0, 0.0), -math.pi / 2, (-1.7628, 1.7628), 4500, 1.0, 0.1),
    ((0.0, -0.316, 0.0), math.pi / 2, (-2.8973, 2.8973), 3500, 1.0, 0.1),
    ((0.0825, 0.0, 0.0), math.pi / 2, (-3.0718, -0.0698), 3500, 1.0, 0.1),
    ((-0.0825, 0.384, 0.0), -math.pi / 2, (-2.8973, 2.8973), 2000, 0.5, 0.1),
    ((0.0, 0.0, 0.0), math.pi / 2, (-0.0175, 3.7525), 2000, 0.5, 0.05),
    ((0.088, 0.0, 0.0), math.pi / 2, (-2.8973, 2.8973), 2000, 0.5, 0.05),
)
_MASSES: Final = (3.0, 3.0, 3.0, 2.5, 2.5, 1.5, 0.6)


def _v(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def _geom(kind: str, size: tuple[float, ...], colour: Rgb | None, **more: object) -> str:
    parts = [f'type="{kind}"', f'size="{_v(size)}"']
    if colour is not None:
        parts.append(f'rgba="{_v((*colour, 1.0))}"')
    for key, value in more.items():
        text = _v(tuple(value)) if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownArgumentType] - a plain tuple of floats
        parts.append(f'{key.rstrip("_")}="{text}"')
    return f"<geom {' '.join(parts)}/>"


def look_at_axes(
    position: tuple[float, float, float],
    target: tuple[float, float, float],
    up: tuple[float, float, float],
) -> tuple[float, ...]:
    """MuJoCo's `xyaxes` (camera right, camera up) of a camera that looks at a target."""
    forward = tuple(t - p for t, p in zip(target, position, strict=True))
    right = (
        forward[1] * up[2] - forward[2] * up[1],
        forward[2] * up[0] - forward[0] * up[2],
        forward[0] * up[1] - forward[1] * up[0],
    )
    above = (
        right[1] * forward[2] - right[2] * forward[1],
        right[2] * forward[0] - right[0] * forward[2],
        right[0] * forward[1] - right[1] * forward[0],
    )
    return (*right, *above)


def _link_shapes(look: RobotLook) -> tuple[str, ...]:
    """Looks of the seven links; none of them collides."""

    def bar(start: tuple[float, ...], end: tuple[float, ...], radius: float, colour: Rgb) -> str:
        return _geom("capsule", (radius,), colour, fromto=(*start, *end), class_="look")

    def hub(half: float, radius: float) -> str:
        return _geom("cylinder", (radius, half), look.joint, class_="look")

    return (
        bar((0.0, 0.0, -0.19), (0.0, 0.0, -0.05), 0.055, look.link) + hub(0.06, 0.057),
        hub(0.075, 0.058) + bar((0.0, 0.0, 0.0), (0.0, -0.20, 0.0), 0.052, look.link),
        bar((0.0, 0.0, -0.10), (0.0, 0.0, 0.0), 0.052, look.link)
        + bar((0.0, 0.0, 0.0), (0.0825, 0.0, 0.0), 0.045, look.link),
        hub(0.068, 0.054) + bar((0.0, 0.0, 0.0), (-0.0825, 0.12, 0.0), 0.042, look.link),
        bar((0.0, 0.0, -0.26), (0.0, 0.0, -0.03), 0.046, look.link),
        hub(0.062, 0.048) + bar((0.0, 0.0, 0.0), (0.088, 0.0, 0.0), 0.040, look.link),
        _geom("cylinder", (0.036, 0.030), look.joint, pos=(0.0, 0.0, 0.075), class_="look"),
    )


def _finger(side: int, look: RobotLook) -> str:
    name = "right" if side > 0 else "left"
    # The pad's inner face lies at x = 0 of the finger, so the joint value is half the jaw opening.
    return f"""
<body name="finger_{name}" gravcomp="1">
  <inertial pos="{_v((side * 0.012, 0.0, 0.09))}" mass="0.03" diaginertia="1e-5 1e-5 1e-5"/>
  <joint name="finger_{name}" type="slide" axis="{side} 0 0" range="0 {JAW_TRAVEL_M}"
    armature="0.1" damping="20"/>
  {_geom("box", (0.005, 0.0075, 0.011), _PAD, pos=(side * 0.005, 0.0, 0.113), name=f"pad_{name}", class_="pad")}
  {_geom("box", (0.004, 0.0075, 0.031), look.hand, pos=(side * 0.014, 0.0, 0.086), class_="tool")}
</body>"""


def _hand(look: RobotLook) -> str:
    dx, dy, dz = look.wrist_offset_m
    eye = (dx, -0.062 + dy, 0.026 + dz)
    axes = look_at_axes(eye, (0.0, -0.004, 0.125), (0.0, -1.0, 0.0))
    return f"""
<body name="hand" pos="0 0 0.107" gravcomp="1">
  <inertial pos="0 0 0.03" mass="0.5" diaginertia="1e-3 1e-3 1e-3"/>
  {_geom("box", (0.046, 0.016, 0.026), look.hand, pos=(0.0, 0.0, 0.028), class_="tool")}
  {_geom("box", (0.012, 0.010, 0.010), look.hand, pos=(dx, -0.070 + dy, 0.012 + dz), class_="look")}
  {_geom("box", (0.006, 0.022, 0.004), look.hand, pos=(dx, -0.040, 0.006), class_="look")}
  <camera name="wrist" pos="{_v(eye)}" xyaxes="{_v(axes)}" fovy="74"/>
  <site name="tcp" pos="0 0 0.118" size="0.001" rgba="0 0 0 0"/>
  {_finger(1, look)}{_finger(-1, look)}
</body>"""


def _arm(look: RobotLook) -> str:
    shapes = _link_shapes(look)
    text = _hand(look)
    for index in range(len(_JOINTS) - 1, -1, -1):
        offset, roll, limits, _, damping, armature = _JOINTS[index]
        text = f"""
<body name="link{index + 1}" pos="{_v(offset)}" euler="{_v((roll, 0.0, 0.0))}" gravcomp="1">
  <inertial pos="0 0 0" mass="{_MASSES[index]}" diaginertia="0.02 0.02 0.02"/>
  <joint name="joint{index + 1}" axis="0 0 1" range="{_v(limits)}" damping="{damping}"
    armature="{armature}"/>
  {shapes[index]}{text}
</body>"""
    pedestal = _geom("cylinder", (0.075, 0.07), look.joint, pos=(0.0, 0.0, 0.07), class_="look")
    return f"""
<body name="base" pos="{_v(look.base_position_m)}" euler="{_v((0.0, 0.0, look.base_yaw_rad))}">
  {pedestal}{text}
</body>"""


def _bolt(index: int) -> str:
    flats = "".join(
        _geom(
            "box",
            (HEAD_HALF_FLATS_M, HEAD_HALF_FLATS_M / math.sqrt(3), HEAD_HEIGHT_M / 2),
            _BOLT_HEAD,
            pos=(0.0, 0.0, HEAD_HEIGHT_M / 2),
            euler=(0.0, 0.0, turn * math.pi / 3),
            mass=0.009,
            class_="bolt",
        )
        for turn in range(3)
    )
    half = (BOLT_LENGTH_M - HEAD_HEIGHT_M) / 2
    shaft = _geom(
        "cylinder",
        (SHAFT_RADIUS_M, half),
        _BOLT_SHAFT,
        pos=(0.0, 0.0, HEAD_HEIGHT_M + half),
        mass=0.028,
        class_="bolt",
    )
    return f"""
<body name="bolt{index}" pos="{_v((-2.0, 2.0 + index, 0.5))}">
  <freejoint name="bolt{index}"/>{flats}{shaft}
</body>"""


def _fixture(look: RobotLook) -> str:
    half, lead = RAIL_LENGTH_M / 2, math.radians(35)
    geoms: list[str] = []
    for side in (-1, 1):
        geoms.append(
            _geom(
                "box",
                (0.004, half, 0.007),
                look.rail,
                pos=(side * 0.0175, half, 0.007),
                class_="fixture",
            )
        )
        geoms.append(
            _geom(
                "box",
                (0.0075, half, 0.003),
                look.rail,
                pos=(side * 0.014, half, 0.017),
                class_="fixture",
            )
        )
        length, thickness = 0.014, 0.002
        centre = (
            side * (0.0065 + math.sin(lead) * length / 2 + math.cos(lead) * thickness),
            -math.cos(lead) * length / 2 + math.sin(lead) * thickness,
            0.017,
        )
        geoms.append(
            _geom(
                "box",
                (thickness, length / 2, 0.003),
                look.rail,
                pos=centre,
                euler=(0.0, 0.0, side * lead),
                class_="fixture",
            )
        )
    geoms.append(
        _geom(
            "box",
            (0.0215, 0.003, 0.010),
            look.rail,
            pos=(0.0, RAIL_LENGTH_M + 0.003, 0.010),
            class_="fixture",
        )
    )
    geoms.append(
        _geom(
            "box",
            (0.003, half, 0.0275),
            look.wall,
            pos=(look.wall_side * 0.058, half, 0.0275),
            class_="fixture",
        )
    )
    return f'<body name="fixture" mocap="true" pos="0.5 0.10 0">{"".join(geoms)}</body>'


def _table(look: RobotLook) -> str:
    lines = "".join(
        _geom("box", size, look.table_line, pos=position, class_="look")
        for size, position in (
            ((0.004, 0.60, 0.0002), (0.30, 0.0, 0.0)),
            ((0.004, 0.60, 0.0002), (0.66, 0.0, 0.0)),
            ((0.60, 0.004, 0.0002), (0.35, 0.05, 0.0)),
        )
    )
    top = _geom(
        "box", (0.62, 0.60, 0.05), look.table, pos=(0.35, 0.0, -0.05), name="table", class_="table"
    )
    floor = _geom("plane", (3.0, 3.0, 1.0), look.floor, pos=(0.0, 0.0, -0.6), class_="look")
    return top + lines + floor


def _actuators() -> str:
    lines = [
        f'<position name="joint{i + 1}" joint="joint{i + 1}" kp="{kp}" kv="{0.04 * kp}"/>'
        for i, (_, _, _, kp, _, _) in enumerate(_JOINTS)
    ]
    lines += [
        f'<position name="finger_{side}" joint="finger_{side}" kp="2500" kv="60" forcerange="-25 25"/>'
        for side in ("right", "left")
    ]
    return "".join(lines)


def _light(direction: tuple[float, float, float], strength: float) -> str:
    diffuse = _v((strength,) * 3)
    return (
        f'<light directional="true" pos="0 0 2" dir="{_v(direction)}" diffuse="{diffuse}" '
        'specular="0 0 0" castshadow="false"/>'
    )


def build_mjcf(look: RobotLook, bolts: int) -> str:
    """MJCF of the whole bench for one robot, with `bolts` bolts (1 to 4)."""
    head_axes = look_at_axes(look.head_position_m, look.head_target_m, (0.0, 0.0, 1.0))
    # Rings, so that a bolt held over it hides only the middle.
    colours = (_SPOT, _SPOT_RING, _SPOT)
    spot = "".join(
        _geom("cylinder", (radius, 0.0003 + 0.0002 * i), colours[i], class_="look")
        for i, radius in enumerate(SPOT_RADII_M)
    )
    return f"""
<mujoco model="bolt bench">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIMESTEP_S}" integrator="implicitfast" cone="elliptic" impratio="10"
    iterations="50" ls_iterations="50" tolerance="1e-8"><flag multiccd="enable"/></option>
  <size memory="8M"/>
  <statistic center="0.4 0 0.1" extent="1"/>
  <visual>
    <global offwidth="{HEAD_SIZE}" offheight="{HEAD_SIZE}"/>
    <quality shadowsize="0" offsamples="0" numslices="12" numstacks="6"/>
    <headlight ambient="0.34 0.34 0.34" diffuse="0.20 0.20 0.20" specular="0 0 0"/>
    <map znear="0.01" zfar="6"/>
  </visual>
  <default>
    <geom solref="0.004 1" solimp="0.95 0.99 0.0005"/>
    <default class="look"><geom contype="0" conaffinity="0" mass="0"/></default>
    <default class="tool"><geom friction="0.6" mass="0.01"/></default>
    <default class="pad"><geom friction="1.2 0.003 0.0001" condim="4" mass="0.01"/></default>
    <default class="bolt"><geom friction="0.96 0.003 0.0001" condim="4"/></default>
    <default class="table"><geom friction="0.3 0.003 0.0001" priority="1"/></default>
    <default class="fixture"><geom friction="0.25 0.003 0.0001" condim="3" priority="1"/></default>
  </default>
  <worldbody>
    {_light((0.35, 0.25, -1.0), 0.42)}
    {_light((-0.5, -0.4, -0.7), 0.15)}
    <camera name="head" pos="{_v(look.head_position_m)}" xyaxes="{_v(head_axes)}" fovy="{look.head_fovy_deg:g}"/>
    {_table(look)}
    <body name="spot" mocap="true" pos="0.53 -0.09 0.0005">{spot}</body>
    {_fixture(look)}
    {_arm(look)}
    {"".join(_bolt(i) for i in range(bolts))}
  </worldbody>
  <equality>
    <joint joint1="finger_right" joint2="finger_left" polycoef="0 1 0 0 0" solref="0.005 1"/>
  </equality>
  <actuator>{_actuators()}</actuator>
</mujoco>"""
