"""What the refinement actor does: for a real state, the action under each single-axis command, drawn on the image.

A state is taken where it matters: the policy acts alone until the simulated operator would have spoken, in the first
scene in which it would.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from jaxtyping import Float64, UInt8
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hildaft.eval.figures import INK, MUTED, STYLE
from hildaft.eval.long_horizon import SeededPolicy
from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.teleop.simulated_operator import SimulatedOperator
from hildaft.types import NULL_COMMAND, Encoded, HilDaftError, Observation, RefinementCommand

GAIN: Final = 6.0
"""Arrows are this many times as long as the step they stand for."""
SAMPLES: Final = 32
"""Noise samples an action is averaged over; the same for every command."""
SCENES: Final = 20
"""Of a task that are looked at for one in which the policy errs."""
_LAST: Final = 25
_ON_THE_WAY: Final = 8
"""Steps: where a scene is given up, and where a policy that never errs is looked at."""
_COLOURS: Final = ("#c7402d", "#2f9e6e", "#2f66c0")
_COMMANDS: Final = tuple(
    (
        axis,
        sign,
        RefinementCommand(cast(tuple[int, int, int], tuple(sign * (i == axis) for i in range(3)))),
    )
    for axis in range(3)
    for sign in (1, -1)
)


@dataclass(frozen=True, kw_only=True)
class SteeredState:
    """One state, its pictures, and what each command makes of the action there."""

    task: str
    step: int
    wanted: RefinementCommand
    """What the operator would have said; "[null]" where the policy never erred."""
    observation: Observation
    silent_mm: Float64[np.ndarray, "3"]
    """Mean step in silence (base axes)."""
    steered_mm: Float64[np.ndarray, "6 3"]
    """Under +x, -x, +y, -y, +z, -z."""
    at_uv: dict[str, Float64[np.ndarray, "2"]]
    """Where the tool centre point is in each image, 0 to 1."""
    silent_uv: dict[str, Float64[np.ndarray, "2"]]
    steered_uv: dict[str, Float64[np.ndarray, "6 2"]]
    """Ends of the arrows."""


def find_state(
    robot: BoltRobot,
    policy: SeededPolicy,
    operator: SimulatedOperator,
    task: str,
    seeds: Sequence[int],
) -> SteeredState:
    """The policy acts in silence until the operator would speak; on the way of the first scene where it never would."""
    for seed in seeds:
        step, wanted, observation = _act_until_wrong(robot, policy, operator, task, seed, _LAST)
        if not wanted.is_null:
            break
    else:
        step, wanted, observation = _act_until_wrong(
            robot, policy, operator, task, seeds[0], _ON_THE_WAY
        )
    encoded = policy.encode(observation, task)
    millimetres = 1000.0 * robot.action_scale.translation_m
    silent = millimetres * _mean_step(policy, encoded, NULL_COMMAND)
    steered = np.stack([millimetres * _mean_step(policy, encoded, c) for _, _, c in _COMMANDS])
    tool = robot.scene_state().ee_position_m
    points = tool + GAIN / 1000.0 * np.stack([np.zeros(3), silent, *steered])
    projected = {name: p.uv for name, p in robot.env.scene.project(points).items()}
    return SteeredState(
        task=task,
        step=step,
        wanted=wanted,
        observation=observation,
        silent_mm=silent,
        steered_mm=steered,
        at_uv={name: uv[0] for name, uv in projected.items()},
        silent_uv={name: uv[1] for name, uv in projected.items()},
        steered_uv={name: uv[2:] for name, uv in projected.items()},
    )


def _act_until_wrong(
    robot: BoltRobot,
    policy: SeededPolicy,
    operator: SimulatedOperator,
    task: str,
    seed: int,
    limit: int,
) -> tuple[int, RefinementCommand, Observation]:
    """Steps taken, what is said then ("[null]": the episode ended or `limit` came first), and the observation there."""
    observation = robot.reset(task, seed)
    operator.begin(task, seed)
    policy.begin(seed)
    for step in range(limit):
        wanted = operator.speak()
        if not wanted.is_null:
            return step, wanted, observation
        action = policy.act(policy.encode(observation, task), NULL_COMMAND)
        operator.tweak(action)
        result = robot.step(action)
        observation = result.observation
        if result.terminated or result.truncated:
            return step + 1, NULL_COMMAND, observation
    return limit, operator.speak(), observation


def _mean_step(
    policy: SeededPolicy, encoded: Encoded, command: RefinementCommand
) -> Float64[np.ndarray, "3"]:
    """Mean translation over the same noise samples, in units of the action."""
    steps: list[np.ndarray] = []
    for sample in range(SAMPLES):
        policy.begin(sample)
        steps.append(policy.act(encoded, command)[:3].astype(np.float64))
    return np.mean(steps, axis=0)


def draw_states(states: Sequence[SteeredState], title: str) -> Figure:
    """A row per state: both cameras with the arrows, and how far each command moves its own axis."""
    with rc_context(
        cast(
            Any,
            {
                **STYLE,
                "axes.axisbelow": True,
                "figure.facecolor": "white",
                "axes.facecolor": "white",
            },
        )
    ):
        figure = Figure(figsize=(11.0, 3.5 * len(states) + 0.7), layout="constrained")
        panels = figure.subplots(len(states), 3, squeeze=False, width_ratios=(1, 1, 0.8))
        for row, state in enumerate(states):
            for column, camera in enumerate(("head", "wrist")):
                axes = panels[row][column]
                image = state.observation.images[camera]
                _draw_arrows(axes, state, camera, image)
                axes.set_title(f"{state.task}, step {state.step}: {camera} camera")
            _draw_bars(panels[row][2], state)
        figure.suptitle(title, color=INK, fontsize=11)
    return figure


def _draw_arrows(
    axes: Axes, state: SteeredState, camera: str, image: UInt8[np.ndarray, "h w 3"]
) -> None:
    size = image.shape[0]
    axes.imshow(image, interpolation="lanczos")
    start = state.at_uv[camera] * size
    ends = [state.silent_uv[camera] * size, *(state.steered_uv[camera] * size)]
    styles = [("white", "-", "silent")] + [
        (_COLOURS[axis], "-" if sign > 0 else ":", f"{'+' if sign > 0 else '-'}{'xyz'[axis]}")
        for axis, sign, _ in _COMMANDS
    ]
    for end, (colour, line, label) in zip(ends, styles, strict=True):
        if line == "-":
            axes.plot(*np.stack([start, end]).T, color="black", linewidth=4.0)
        axes.plot(*np.stack([start, end]).T, line, color=colour, linewidth=2.2, label=label)
        axes.plot(*end, "o", color=colour, markeredgecolor="black", markersize=5)
    every = np.stack([start, *ends])
    reach = min(0.5 * size, max(0.13 * size, 0.75 * float(np.ptp(every, axis=0).max())))
    # The window stays within the image.
    x, y = np.clip(every.mean(axis=0), reach - 0.5, size - 0.5 - reach)
    axes.set_xlim(x - reach, x + reach)
    axes.set_ylim(y + reach, y - reach)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    if camera == "head":
        axes.legend(
            ncols=2, fontsize=7, loc="lower left", frameon=True, facecolor="#e9e7e0", labelcolor=INK
        )


def _draw_bars(axes: Axes, state: SteeredState) -> None:
    moved = state.steered_mm - state.silent_mm
    names = [f"{'+' if sign > 0 else '-'}{'xyz'[axis]}" for axis, sign, _ in _COMMANDS]
    wanted = state.wanted.signs
    for place, (axis, sign, _) in enumerate(_COMMANDS):
        others = np.delete(moved[place], axis)
        axes.barh(
            place, moved[place, axis], 0.6, color=_COLOURS[axis], alpha=1.0 if sign > 0 else 0.55
        )
        axes.plot(others, [place, place], "|", color=MUTED, markersize=9)
        if wanted[axis] == sign:
            names[place] += "  (wanted)"
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("mm; bar: own axis, ticks: others")
    axes.set_title("Difference from silence")


def write_steering_figure(path: Path, states: Sequence[SteeredState], title: str) -> None:
    """Writes the picture; raises HilDaftError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_states(states, title).savefig(path, dpi=120)
    except OSError as error:
        msg = f"picture {path}: {error.strerror or error}; name another with --out"
        raise HilDaftError(msg) from error
