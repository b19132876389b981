"""Real arms before they are trained on: `check-robot` and `calibrate`."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import tyro
from jaxtyping import Float64

from hildaft.commands.parse import parse_words
from hildaft.robots.bolt_arm import BoltArmConfig
from hildaft.robots.real_arm import RealArm, reach_around
from hildaft.robots.workspace import Workspace
from hildaft.types import HilDaftError

_LONGEST_MM: Final = 20.0
_LEAST_M: Final = 0.005
_AXES: Final = {"x": 0, "y": 1, "z": 2}


def check_robot(words: Sequence[str]) -> int:
    """`hildaft check-robot FILE [--dry-run]`."""

    @dataclass(frozen=True)
    class CheckRobotArguments:
        """Read an arm's state once and say whether it fits its file; nothing moves."""

        file: tyro.conf.Positional[Path]
        """YAML file of the arm, such as examples/robots/franka_serl.yaml."""
        dry_run: bool = False
        """Go through one step, and print what would be sent."""

    from hildaft.arms import open_arm
    from hildaft.config_files import read_arm

    given = parse_words(CheckRobotArguments, "check-robot", words)
    robot = open_arm(read_arm(given.file), print, cameras=False)
    try:
        for note in robot.connect():
            print(note)
        if given.dry_run:
            robot.dry_run()
    finally:
        robot.close()
    return 0


def calibrate(words: Sequence[str]) -> int:
    """`hildaft calibrate FILE [--jog]`."""

    @dataclass(frozen=True)
    class CalibrateArguments:
        """Measure the workspace box: bring the arm to its corners, by hand or in small steps."""

        file: tyro.conf.Positional[Path]
        """YAML file of the arm."""
        jog: bool = False
        """Move the arm by words such as `+x` or `-z 10` (mm); without it nothing is sent, you lead it by hand."""
        reach_m: float = 0.3
        """With --jog: how far from where it stands the arm may go at most; the margin and 5 mm, or more."""
        margin_m: float = 0.01
        """The box is this much smaller on each side than the corners visited."""

    from hildaft.arms import open_arm
    from hildaft.config_files import read_arm

    given = parse_words(CalibrateArguments, "calibrate", words)
    # Within less than the margin and this about where the arm stands there is no box.
    least = round(given.margin_m + _LEAST_M, 6)
    for name, low, high in (("margin_m", 0.0, 0.1), ("reach_m", least, 1.0)):
        if not low <= getattr(given, name) <= high:
            option = f"--{name.replace('_', '-')}"
            msg = f"calibrate {name}={getattr(given, name)}: {low} to {high} is allowed; give another {option}"
            raise HilDaftError(msg)
    config = read_arm(given.file)
    if isinstance(config, BoltArmConfig) and not given.jog:
        msg = f"calibrate {given.file}: nobody can lead a simulated arm by hand; move it by words with --jog"
        raise HilDaftError(msg)
    box_of = partial(
        Workspace.around, margin_m=given.margin_m, max_turn_rad=config.workspace.max_turn_rad
    )
    robot = open_arm(config, None if given.jog else print, cameras=False)
    try:
        robot.connect()
        if given.jog:
            # The box that is to be measured cannot bound the way to its own corners.
            robot.widen(reach_around(robot.measure_position(), given.reach_m))
            robot.take_over()
        box = visit_corners(robot, sys.stdin.readline, box_of, jog=given.jog)
    finally:
        robot.close()
    print(
        f"put this into {given.file}:\nworkspace:\n  low_m: {list(box.low_m)}\n  high_m: {list(box.high_m)}"
    )
    print(f"  max_turn_rad: {box.max_turn_rad}")
    return 0


def visit_corners(
    robot: RealArm,
    read_line: Callable[[], str],
    box_of: Callable[[Float64[np.ndarray, "n 3"]], Workspace],
    *,
    jog: bool,
) -> Workspace:
    """The box around the positions at which Enter was pressed; "q" ends the visit once they make one.

    Raises:
        HilDaftError: the input ends before that.
    """
    how = "move by +x -x +y -y +z -z, with millimetres after it (5)" if jog else "lead the arm"
    print(f"{how}; at a corner press Enter; q and Enter when done (two opposite corners or more)")
    corners: list[np.ndarray] = []
    while True:
        line = read_line()
        word = line.strip().lower()
        if not line or word == "q":
            try:
                return box_of(np.array(corners).reshape(-1, 3))
            except HilDaftError as error:
                if not line:
                    raise
                # What was visited so far is not thrown away: a further corner may mend it.
                print(f"{error}; go on, or Ctrl-C")
                continue
        if word and not jog:
            print(f"{word!r}: Enter for a corner, or q; to move by words start with --jog")
            continue
        if word:
            move_m = parse_move(word)
            if move_m is None:
                print(f"{word!r}: not understood; such as +x or -z 10, up to {_LONGEST_MM:.0f} mm")
                continue
            here, said = robot.nudge(move_m), "at"
        else:
            corners.append(robot.measure_position())
            here, said = corners[-1], f"corner {len(corners)}:"
        position = ", ".join(f"{value:.3f}" for value in here)
        print(f"{said} {position} m")


def parse_move(words: str) -> Float64[np.ndarray, "3"] | None:
    """A move in metres out of a sign, an axis and millimetres; None where it is none, or too long."""
    direction, _, length = words.partition(" ")
    if len(direction) != 2 or direction[0] not in "+-" or direction[1] not in _AXES:
        return None
    try:
        size_mm = float(length) if length.strip() else 5.0
    except ValueError:
        return None
    if not 0.0 < size_mm <= _LONGEST_MM:
        return None
    move = np.zeros(3)
    move[_AXES[direction[1]]] = (1e-3 if direction[0] == "+" else -1e-3) * size_mm
    return move
