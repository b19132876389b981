"""Talk: from the human's correction to the words of a refinement command (eq. 12-13).

Displacements are in metres, in the command frame, which is the robot's base frame.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from hildaft.types import (
    COMMAND_COUNT,
    NULL_COMMAND,
    ActionScale,
    HilDaftError,
    RefinementCommand,
)

RULE_VERSION: Final = 1
"""Stored beside the labels, so that they can be made anew when the rule changes."""

WINDOW: Final = 5
"""J: control steps whose displacement is summed (Sec. IV-B)."""

THRESHOLD_M: Final = 0.001
"""sigma: displacement per axis from which a direction is named (Sec. IV-B)."""

Axis: TypeAlias = Literal["+x", "-x", "+y", "-y", "+z", "-z"]


def command_from_displacement(
    displacement_m: Float[np.ndarray, "3"], threshold_m: float = THRESHOLD_M
) -> RefinementCommand:
    """Names each axis whose displacement exceeds the threshold.

    Paper: Eq. 13.
    """
    x, y, z = (int(np.sign(d)) if abs(d) > threshold_m else 0 for d in displacement_m)
    return RefinementCommand((x, y, z))


def sum_displacements(
    translation_m: Float[np.ndarray, "t 3"],
    is_human: Bool[np.ndarray, " t"],
    window: int = WINDOW,
) -> Float[np.ndarray, "t 3"]:
    """Displacement over the next `window` steps of a run of human steps; 0 where no human acts.

    The window ends with the run, so it never mixes two interventions.

    Paper: Eq. 12.
    """
    if window < 1:
        msg = f"window={window}: must be >= 1; the paper uses {WINDOW}"
        raise HilDaftError(msg)
    displacement = np.zeros((len(is_human), 3))
    for start, stop in human_runs(is_human):
        for row in range(start, stop):
            displacement[row] = translation_m[row : min(row + window, stop)].sum(axis=0)
    return displacement


def human_runs(is_human: Bool[np.ndarray, " t"]) -> list[tuple[int, int]]:
    """First row and row after the last of each run of consecutive human steps."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_human, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def label_tweaks(
    human_action: Float[np.ndarray, "t 7"],
    is_human: Bool[np.ndarray, " t"],
    scale: ActionScale,
    window: int = WINDOW,
    threshold_m: float = THRESHOLD_M,
) -> tuple[Int[np.ndarray, " t"], Float[np.ndarray, "t 3"]]:
    """One episode's command indices and displacements (m).

    They are "[null]" and 0 on rows where no human acts.
    """
    translation_m = human_action[:, :3].astype(np.float64) * scale.translation_m
    displacement_m = sum_displacements(translation_m, is_human, window)
    labels = [command_from_displacement(row, threshold_m).index for row in displacement_m]
    return np.array(labels, dtype=np.int64), displacement_m.astype(np.float32)


def _phrase(command: RefinementCommand) -> str:
    words = [
        f"{'positive' if sign > 0 else 'negative'} {axis} direction"
        for axis, sign in zip("xyz", command.signs, strict=True)
        if sign
    ]
    return " and ".join(words) if words else "[null]"


PHRASES: Final[tuple[str, ...]] = tuple(
    _phrase(RefinementCommand.from_index(index)) for index in range(COMMAND_COUNT)
)
"""The canonical words of each command, by index."""


@dataclass(frozen=True, kw_only=True)
class OperatorFrame:
    """Which base axis points forward, left and up as the operator sees this robot."""

    forward: Axis = "+x"
    """Base axis away from the operator."""

    left: Axis = "+y"
    """Base axis to the operator's left."""

    up: Axis = "+z"
    """Base axis against gravity."""

    def __post_init__(self) -> None:
        axes = (self.forward, self.left, self.up)
        if {axis[1:] for axis in axes} != {"x", "y", "z"} or any(a[0] not in "+-" for a in axes):
            msg = (
                f"operator frame forward={self.forward}, left={self.left}, up={self.up}: "
                "each must be a different base axis out of +x, -x, +y, -y, +z, -z"
            )
            raise HilDaftError(msg)

        forward, left, up = self.matrix.T
        if not np.array_equal(np.cross(forward, left), up):
            msg = (
                f"operator frame forward={self.forward}, left={self.left}, up={self.up}: it is "
                "mirrored, so that left would be right; turn one of the three axes round"
            )
            raise HilDaftError(msg)

    @property
    def matrix(self) -> Float[np.ndarray, "3 3"]:
        """Rotation from (forward, left, up) to base axes; columns are the three directions."""
        matrix = np.zeros((3, 3))
        for column, axis in enumerate(self._axes):
            matrix["xyz".index(axis[1]), column] = _sense(axis)
        return matrix

    def to_base(self, said: RefinementCommand) -> RefinementCommand:
        """The command in base axes for signs (forward, left, up) as the operator means them."""
        signs = [0, 0, 0]
        for axis, sign in zip(self._axes, said.signs, strict=True):
            signs["xyz".index(axis[1])] = sign * _sense(axis)
        return RefinementCommand((signs[0], signs[1], signs[2]))

    def to_operator(self, command: RefinementCommand) -> RefinementCommand:
        """The signs (forward, left, up) the operator sees for a command in base axes."""
        forward, left, up = (
            command.signs["xyz".index(axis[1])] * _sense(axis) for axis in self._axes
        )
        return RefinementCommand((forward, left, up))

    @property
    def _axes(self) -> tuple[Axis, Axis, Axis]:
        return (self.forward, self.left, self.up)

    def words(self, command: RefinementCommand) -> str:
        """The command as the operator would say it, such as "move right and forward"."""
        forward, left, up = self.to_operator(command).signs
        named = ((left, "left", "right"), (forward, "forward", "back"), (up, "up", "down"))
        said = [positive if sign > 0 else negative for sign, positive, negative in named if sign]
        return f"move {' and '.join(said)}" if said else PHRASES[NULL_COMMAND.index]


def _sense(axis: Axis) -> int:
    return 1 if axis[0] == "+" else -1
