"""What a skilled person would do now: a memoryless law from the visible state to an action.

Demonstrations and corrections must be learnable from single frames, so nothing here remembers:
the action is a function of the `SceneState` alone, smooth wherever the task allows, and every switch
(close, open) has a threshold of 4 mm or more, twice what the cameras resolve near contact. Heights over
the table are seen worst (4 mm at the 80th percentile), so letting go has 6 to 8 mm.
All geometry is in robot base axes, z up.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64

from hildaft.types import Action, ActionScale, SceneState

Vector = Float64[np.ndarray, "3"]
Matrix = Float64[np.ndarray, "3 3"]

BOLT_LENGTH_M: Final = 0.055
UPRIGHT_AIM_M: Final = 0.044
"""Where along the axis `upright` sends the jaws, so that they close 45 mm along it, 10 mm before the tail's end."""
_PICK_AIM_M: Final = 0.0385
"""Where along the bolt's axis the jaws are sent so that they close, on the way down, 40 mm along it."""
_STANDING_M: Final = 0.008
"""How far over the table an upright bolt may be let go: it drops on its head and stands."""
_SEATED_M: Final = 0.006
"""How far over the rail's floor a bolt may be let go in the slot."""
_DEEP_M: Final = 0.036
"""How far past the slot's mouth a bolt is let go: far over the 15 mm that count, for one that leans lags behind."""
CARRY_LOW_M: Final = -0.0005
"""Height sought before the slot: the head brushes the table, midway between pressing on and meeting the lips."""
_UP: Final = np.array([0.0, 0.0, 1.0])
_HEAD_RADIUS_M: Final = 0.0115
_GAIN: Final = 0.42
"""Share of the remaining error asked for per step: the arm lags by a third of a step's move."""
_NEAR_M: Final = 0.004
"""How near the grip, along and aside, the jaws begin to close."""
_CALM: Final = 0.7
"""Speed, as a share of full scale, where the 50 steps leave time (`pick`, `assemble`)."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """Where the end effector should go from here, and what the jaws should do."""

    move_m: Vector
    turn_rad: Vector
    close: bool
    speed: float = 1.0
    """Largest translation per step, as a share of full scale."""
    after_m: float = 0.0
    """Way that is left once `move_m` is made."""


def _ramp(value: float, low: float, high: float) -> float:
    """0 below `low`, 1 above `high`, linear between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _rotation_vector(matrix: Matrix) -> Vector:
    """Rotation vector of a rotation matrix; angles up to just below pi."""
    sine = np.array(
        [matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]]
    )
    norm = float(np.linalg.norm(sine))
    if norm < 1e-9:
        return sine
    return sine * (math.atan2(norm, float(np.trace(matrix)) - 1.0) / norm)


def _to_upright(axis: Vector) -> Vector:
    """Rotation vector of the shortest turn that takes an axis to the vertical."""
    lever = np.cross(axis, _UP)
    sine = float(np.linalg.norm(lever))
    return lever * (math.atan2(sine, float(axis[2])) / max(sine, 1e-9))


def _hand(approach: Vector, closing: Vector) -> Matrix:
    """End effector rotation that approaches along one axis and closes about along another."""
    side = np.cross(approach, closing)
    side /= np.linalg.norm(side)
    return np.stack([np.cross(side, approach), side, approach], axis=1)


def _reach(state: SceneState, point: Vector, hand: Matrix) -> _Wish:
    """Goes to a grip: down a funnel whose height above it grows with what is still misaligned."""
    approach = hand[:, 2]
    error = point - state.ee_position_m
    turn = _rotation_vector(hand @ state.ee_rotation.T)
    along = float(error @ approach)
    aside = float(np.linalg.norm(error - along * approach))
    crooked = float(np.linalg.norm(turn))
    stand_off = min(0.045, 2.0 * max(0.0, aside - 0.006) + 0.06 * max(0.0, crooked - 0.15))
    # Jaws that began to close go on unless they are clearly off: no flutter at the threshold.
    reach = _NEAR_M * (2.0 if state.jaw_closed else 1.0)
    close = aside < reach and abs(along) < reach and crooked < 0.3
    speed = 1.0 if state.task == "upright" else _CALM
    return _Wish(error - stand_off * approach, turn, close, speed, stand_off)


def _lie_grip(state: SceneState) -> tuple[Vector, Matrix]:
    """Grip point and hand for a bolt that does not stand: straight down on the tail's end."""
    axis = state.bolt_rotation[:, 2]
    flat = np.array([axis[0], axis[1], 0.0])
    flat /= max(float(np.linalg.norm(flat)), 1e-9)
    closing = np.cross(flat, _UP)
    return state.bolt_position_m + UPRIGHT_AIM_M * axis, _hand(-_UP, closing)


def _home_hand(state: SceneState) -> Matrix:
    """The hand pointing down, jaws closing across the rail."""
    return _hand(-_UP, state.slot_rotation[:, 0])


def _upright(state: SceneState) -> _Wish:
    axis = state.bolt_rotation[:, 2]
    lean = math.acos(min(1.0, max(-1.0, float(axis[2]))))
    off = state.spot_position_m - state.bolt_position_m
    off_m = float(np.hypot(off[0], off[1]))
    floor = float(state.spot_position_m[2])
    gripped = state.bolt_held and state.jaw_closed
    # Slack once the jaws are open, so that a bolt just let go is not seized again.
    slack = 1.0 if gripped else 1.4
    standing = lean < 0.12 * slack and float(state.bolt_position_m[2]) - floor < _STANDING_M * slack
    if standing and off_m < 0.005 * slack:
        retreat = np.zeros(3) if state.bolt_held else -0.010 * state.ee_rotation[:, 2]
        return _Wish(retreat, np.zeros(3), close=False)
    if not gripped:
        if lean < 0.5:
            ahead = state.slot_rotation[:, 1]
            hand = _hand(ahead, state.slot_rotation[:, 0])
            return _reach(state, state.bolt_position_m + UPRIGHT_AIM_M * axis, hand)
        point, hand = _lie_grip(state)
        return _reach(state, point, hand)
    return _carry_upright(state, lean, floor)


def _grip(state: SceneState) -> float:
    """Where along the bolt's axis the TCP is, from the head's bottom face."""
    return float((state.ee_position_m - state.bolt_position_m) @ state.bolt_rotation[:, 2])


def _carry_upright(state: SceneState, lean: float, floor: float) -> _Wish:
    """Bolt in the jaws: erect it while carrying it over the spot, then down."""
    axis = state.bolt_rotation[:, 2]
    turn = _to_upright(axis)
    grip = _grip(state)
    # Where the head would stand if the bolt were erected about the TCP here.
    foot = state.ee_position_m - grip * _UP
    beside = state.ee_position_m - state.bolt_position_m - grip * axis
    foot = foot - beside
    move = state.spot_position_m - foot
    off_m = float(np.hypot(move[0], move[1]))
    soon = max(0.0, lean - 0.15)
    lowest = state.ee_position_m[2] - grip * math.cos(soon) - _HEAD_RADIUS_M * math.sin(soon)
    height = 0.025 * _ramp(off_m, 0.006, 0.030) + 0.020 * _ramp(lean, 0.10, 0.5) - 0.001
    move = np.array([move[0], move[1], floor + height - lowest])
    return _Wish(move, turn, close=True)


def _pick(state: SceneState) -> _Wish:
    axis = state.bolt_rotation[:, 2]
    hand = _home_hand(state)
    if state.bolt_held and state.jaw_closed:
        height = float(state.bolt_position_m[2] - state.slot_position_m[2])
        lift = 0.075 - height
        return _Wish(np.array([0.0, 0.0, lift]), _to_upright(axis), close=True, speed=_CALM)
    if float(axis[2]) < 0.8:
        return _reach(state, *_lie_grip(state))
    return _reach(state, state.bolt_position_m + _PICK_AIM_M * axis, hand)


def _assemble(state: SceneState) -> _Wish:
    slot = state.slot_rotation
    across, along, height = (
        float(v) for v in slot.T @ (state.bolt_position_m - state.slot_position_m)
    )
    gripped = state.bolt_held and state.jaw_closed
    seated = abs(across) < 0.006 and height < (_SEATED_M if gripped else 0.008)
    if seated and along > (_DEEP_M if gripped else 0.018):
        # Released: straight up and away, so that no pad drags the bolt along.
        rise = 0.0 if state.bolt_held else 0.010
        return _Wish(np.array([0.0, 0.0, rise]), np.zeros(3), close=False)
    if not gripped:
        return _pick(state)
    level = _to_upright(state.bolt_rotation[:, 2])
    heading = _rotation_vector(_home_hand(state) @ state.ee_rotation.T)[2]
    turn = level + np.array([0.0, 0.0, heading])
    lean = math.acos(min(1.0, max(-1.0, float(state.bolt_rotation[2, 2]))))
    if along > -0.008 and abs(across) < 0.004 and height < 0.012 and lean < 0.25:
        down = CARRY_LOW_M - 0.0035 * _ramp(along, 0.013, 0.028)
        move = slot @ np.array([-across, _DEEP_M + 0.014 - along, down - height])
        return _Wish(move, turn, close=True, speed=0.75 * _CALM)
    # Before the mouth: how far to go on grows with how well the bolt is in line, low and upright.
    aligned = 1.0 - _ramp(abs(across), 0.001, 0.0025)
    aligned *= (1.0 - _ramp(height, 0.006, 0.010)) * (1.0 - _ramp(lean, 0.1, 0.25))
    before = -0.034 - along
    away = float(np.hypot(across, before))
    clearance = (1.0 - aligned) * min(0.045, max(0.0, 0.8 * (away - 0.006)))
    move = slot @ np.array([-across, before + 0.050 * aligned, CARRY_LOW_M + clearance - height])
    speed = _CALM * (1.0 - 0.25 * aligned)
    return _Wish(move, turn, close=True, speed=speed, after_m=_DEEP_M + 0.048 - 0.050 * aligned)


_LAWS: Final = {"upright": _upright, "pick": _pick, "assemble": _assemble}


def _stride(left_m: Vector, scale: ActionScale, cap: float) -> Vector:
    """What one step asks for of the way that is left, in full scale, at most `cap` of it."""
    move = _GAIN * left_m / scale.translation_m
    # Sideways and vertical motion are capped apart, or a long way to go would starve the lift.
    move[:2] *= min(1.0, cap / max(float(np.abs(move[:2]).max()), 1e-9))
    move[2] = min(cap, max(-cap, move[2]))
    return move


def oracle_action(state: SceneState, scale: ActionScale, speed: float = 1.0) -> Action:
    """The skilled action for a state; `speed` caps the share of full scale used.

    A pure function of the state: no memory, no randomness. Horizontal translation
    keeps its direction when capped.
    """
    wish = _LAWS[state.task](state)
    move = _stride(wish.move_m, scale, speed * wish.speed)
    turn = _GAIN * wish.turn_rad / scale.rotation_rad
    turn *= min(1.0, speed / max(float(np.abs(turn).max()), 1e-9))
    grip = 1.0 if wish.close else -1.0
    return np.clip(np.array([*move, *turn, grip]), -1.0, 1.0).astype(np.float32)


def oracle_displacement_m(state: SceneState, scale: ActionScale, steps: int) -> Vector:
    """Where the oracle would move the end effector over the next steps, roughly, in m.

    At its own pace, not at full speed: else its own motion would look like straying.
    """
    wish = _LAWS[state.task](state)
    left = wish.move_m.copy()
    for _ in range(steps):
        left -= scale.translation_m * _stride(left, scale, wish.speed)
    return wish.move_m - left


def remaining_steps(state: SceneState, scale: ActionScale) -> float:
    """About how many steps the oracle still needs: a measure of progress, not a promise."""
    stride = scale.translation_m
    held = state.bolt_held and state.jaw_closed
    axis = state.bolt_rotation[:, 2]
    lean = math.acos(min(1.0, max(-1.0, float(axis[2]))))
    wish = _LAWS[state.task](state)
    to_go = (float(np.abs(wish.move_m).max()) + wish.after_m) / (stride * wish.speed)
    if state.task == "upright":
        if not wish.close and lean < 0.2:
            return 3.0
        if held:
            return max(to_go, lean / scale.rotation_rad) + 6.0
        return to_go + 20.0
    if state.task == "pick":
        return to_go + (3.0 if held else 10.0)
    along = float((state.bolt_position_m - state.slot_position_m) @ state.slot_rotation[:, 1])
    if not wish.close and along > 0.015:
        return 3.0
    return to_go + (6.0 if held else 25.0)
