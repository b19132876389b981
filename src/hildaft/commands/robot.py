"""Real arms: `check-robot` and `calibrate`, of a Franka behind HIL-SERL's server."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from hildaft.commands.parse import parse_words
from hildaft.types import HilDaftError


def check_robot(words: Sequence[str]) -> int:
    """`hildaft check-robot FILE [--dry-run]`."""

    @dataclass(frozen=True)
    class CheckRobotArguments:
        """Read an arm's state once and say whether it fits its file; nothing moves."""

        file: tyro.conf.Positional[Path]
        """YAML file of the arm, such as examples/robots/franka_serl.yaml."""
        dry_run: bool = False
        """Go through a reset and one step, and print what would be sent."""

    from hildaft.jobs import open_serl

    given = parse_words(CheckRobotArguments, "check-robot", words)
    robot = open_serl(given.file, sink=print)
    try:
        for note in robot.connect():
            print(note)
        if given.dry_run:
            robot.dry_run()
    finally:
        robot.close()
    return 0


def calibrate(words: Sequence[str]) -> int:
    """`hildaft calibrate FILE`."""

    @dataclass(frozen=True)
    class CalibrateArguments:
        """Measure the workspace box: lead the arm by hand to its corners. Nothing is sent to it."""

        file: tyro.conf.Positional[Path]
        """YAML file of the arm."""
        margin_m: float = 0.01
        """The box is this much smaller on each side than the corners visited."""

    from hildaft.jobs import open_serl

    given = parse_words(CalibrateArguments, "calibrate", words)
    if not 0.0 <= given.margin_m <= 0.1:
        msg = f"calibrate margin_m={given.margin_m}: 0 to 0.1 is allowed"
        raise HilDaftError(msg)
    robot = open_serl(given.file, sink=print)
    try:
        robot.connect()
        corners = visit_corners(robot.measure_position, sys.stdin.readline)
    finally:
        robot.close()
    from hildaft.robots.workspace import Workspace

    box = Workspace.around(corners, given.margin_m, robot.config.workspace.max_turn_rad)
    print(
        f"put this into {given.file}:\nworkspace:\n  low_m: {list(box.low_m)}\n  high_m: {list(box.high_m)}"
    )
    print(f"  max_turn_rad: {box.max_turn_rad}")
    return 0


def visit_corners(measure: Callable[[], np.ndarray], read_line: Callable[[], str]) -> np.ndarray:
    """Positions (n, 3) in metres at which Enter was pressed; an end of input or "q" ends the visit."""
    print(
        "lead the arm to a corner and press Enter; q and Enter when done (two opposite corners or more)"
    )
    corners: list[np.ndarray] = []
    while True:
        line = read_line()
        if not line or line.strip() == "q":
            return np.array(corners).reshape(-1, 3)
        corners.append(measure())
        position = ", ".join(f"{value:.3f}" for value in corners[-1])
        print(f"corner {len(corners)}: {position} m")
