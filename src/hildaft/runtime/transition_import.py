"""HIL-SERL's and ConRFT's demonstrations, converted by `hildaft convert-pickle`, into our store, row by row."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
from jaxtyping import Float32, Float64
from safetensors import SafetensorError, safe_open

from hildaft.data.episode_builder import EpisodeBuilder
from hildaft.data.episodes import EpisodeStore
from hildaft.data.import_ledger import ImportLedger, digest_of, fingerprint
from hildaft.data.pickled_demos import FORMAT
from hildaft.robots.gym_config import MOTIONS, GymAction, GymCamera
from hildaft.robots.gym_images import to_view
from hildaft.robots.pose import from_euler, matrix_of, multiply
from hildaft.runtime.dataset_import import ImportResult, require_opening
from hildaft.runtime.interaction import DEMONSTRATION_VERSION, FrozenEncoders
from hildaft.teleop.talk import label_tweaks
from hildaft.types import ActionScale, Episode, HilDaftError, Observation

_STAYS: Final = 0.5
"""Gripper values nearer to the middle than this leave the jaws as they are, as in HIL-SERL."""


def _serl_action() -> tuple[GymAction, ...]:
    turns = (GymAction(means="droll", unit=0.1), GymAction(means="dpitch", unit=0.1))
    moves = tuple(GymAction(means=axis, unit=0.02) for axis in ("dx", "dy", "dz"))
    gripper = GymAction(means="gripper", open=1.0, closed=-1.0)
    return (*moves, *turns, GymAction(means="dyaw", unit=0.1), gripper)


@dataclass(frozen=True, kw_only=True)
class TransitionMapping:
    """What converted transitions mean; the defaults are HIL-SERL's Franka."""

    kind: Literal["transitions"]
    """Says which kind of file this is."""
    task: str
    """Our task name."""
    cameras: dict[str, GymCamera]
    """`head` and `wrist`: source `observation`, key such as `wrist_1`; of stacked frames the last is taken."""
    action: tuple[GymAction, ...] = field(default_factory=_serl_action)
    """What each entry of `actions` means, in its order; units are the lab's ACTION_SCALE."""
    frame: Literal["base", "end effector"] = "end effector"
    """Axes of the actions: HIL-SERL's RelativeFrame stores those of the end effector."""
    reset_rpy: tuple[float, float, float] = (np.pi, 0.0, 0.0)
    """Roll, pitch, yaw (rad) of the pose that observations are relative to, only for `end effector`."""
    state: str = "state"
    """Key of the flattened proprioception."""
    relative_rpy: tuple[int, int, int] = (7, 8, 9)
    """Its entries with the end effector's Euler angles relative to the reset pose."""
    jaws: tuple[int, float, float] | None = (0, 1.0, 0.0)
    """Its entry with the jaw opening, its value when open and when closed."""
    robot: str = "franka"
    """Identity recorded with the episodes."""
    action_scale: ActionScale = field(default_factory=ActionScale)
    """Of the robot the data is for; larger actions are clipped, and counted."""

    def __post_init__(self) -> None:
        if set(self.cameras) != {"head", "wrist"}:
            msg = f"mapping.cameras={sorted(self.cameras)}: head and wrist are needed; one camera may feed both"
            raise HilDaftError(msg)
        if self.jaws is not None:
            require_opening(self.jaws)


class _Rows:
    """A converted file, read row by row."""

    def __init__(self, path: Path, file: Any) -> None:  # noqa: ANN401 - safetensors is not typed
        self._path, self._file = path, file
        self.names = set(file.keys())
        self.count = int((file.metadata() or {}).get("transitions", 0))

    def row(self, name: str, row: int) -> Any:  # noqa: ANN401 - of any shape
        """One row of a column."""
        if name not in self.names:
            msg = f"transitions {self._path}: no {name!r}; it holds {', '.join(sorted(self.names))}"
            raise HilDaftError(msg)
        return self._file.get_slice(name)[row : row + 1][0]

    def column(self, name: str) -> Float64[np.ndarray, " n"]:
        """A whole column of single numbers."""
        if name not in self.names:
            msg = f"transitions {self._path}: no {name!r}; it holds {', '.join(sorted(self.names))}"
            raise HilDaftError(msg)
        return np.asarray(self._file.get_tensor(name), dtype=np.float64).reshape(self.count)


def import_transitions(
    path: Path,
    store: EpisodeStore,
    encoders: FrozenEncoders,
    mapping: TransitionMapping,
    on_episode: Callable[[int], None] = lambda _: None,
) -> ImportResult:
    """Adds the episodes of a converted file to a store; an import that was stopped goes on.

    Raises:
        HilDaftError: no converted file, or it does not fit the mapping.
    """
    ledger, digest = ImportLedger(store), digest_of(mapping)
    added = present = clipped = steps = 0
    with _open(path) as rows:
        _require_jaws(rows, mapping)
        dones, rewards = rows.column("dones"), rows.column("rewards")
        ends = [int(row) for row in np.flatnonzero(dones > 0.5)]
        if not ends or ends[-1] != rows.count - 1:
            # Recording was stopped in the middle of an episode: it counts as one without success.
            ends.append(rows.count - 1)
        begin = 0
        for end in ends:
            actions, beyond = _actions(rows, mapping, begin, end + 1)
            # As they are in the file: what the mapping makes of them is the digest's.
            raw = np.stack([rows.row("actions", row) for row in range(begin, end + 1)])
            name = fingerprint("transitions", raw, np.array([begin]))
            # Versions before the digest named an episode by its mapped actions.
            before = fingerprint(mapping.task, actions, np.array([begin]))
            if ledger.has(name, digest) or ledger.has(before, digest):
                present += 1
            else:
                success = bool(rewards[end] > 0)
                episode = _episode(rows, mapping, encoders, begin, actions, success=success)
                ledger.append(name, episode, digest)
                added += 1
                clipped += beyond
                steps += len(episode)
                on_episode(added)
            begin = end + 1
    return ImportResult(episodes=added, skipped=0, present=present, clipped=clipped / max(1, steps))


def _require_jaws(rows: _Rows, mapping: TransitionMapping) -> None:
    if mapping.jaws is None:
        return
    width = len(_state(rows, mapping, f"observations/{mapping.state}", 0))
    if mapping.jaws[0] >= width:
        msg = (
            f"mapping.jaws={list(mapping.jaws)}: {mapping.state!r} has entries 0 to {width - 1};"
            " name one of these, or null"
        )
        raise HilDaftError(msg)


@contextmanager
def _open(path: Path) -> Generator[_Rows]:
    try:
        with safe_open(str(path), framework="numpy") as file:
            rows = _Rows(path, file)
            if (file.metadata() or {}).get("format") != FORMAT or rows.count < 1:
                msg = f"transitions {path}: not written by `hildaft convert-pickle`; convert the pickle first"
                raise HilDaftError(msg)
            yield rows
    except (OSError, SafetensorError) as error:
        msg = f"transitions {path}: {' '.join(str(error).split())[:200]}"
        raise HilDaftError(msg) from error


def _actions(
    rows: _Rows, mapping: TransitionMapping, begin: int, end: int
) -> tuple[Float32[np.ndarray, "t 7"], int]:
    """Actions in our layout, base axes, clipped; and how many steps were."""
    ours = np.zeros((end - begin, 7), np.float32)
    scale, gripper = mapping.action_scale, -1.0
    for place, row in enumerate(range(begin, end)):
        given = np.asarray(rows.row("actions", row), dtype=np.float64).reshape(-1)
        if len(given) != len(mapping.action):
            msg = f"mapping.action: {len(mapping.action)} entries are given, the transitions' have {len(given)}"
            raise HilDaftError(msg)
        moves = np.zeros(6)
        for value, entry in zip(given, mapping.action, strict=True):
            match entry.means:
                case "fixed":
                    continue
                case "gripper":
                    # From -1 (opens) to 1 (closes); a value in the middle says nothing.
                    share = 2.0 * (value - entry.open) / (entry.closed - entry.open) - 1.0
                    gripper = float(np.sign(share)) if abs(share) > _STAYS else gripper
                case motion:
                    moves[MOTIONS.index(motion)] = value * entry.unit
        if mapping.frame == "end effector":
            turn = _orientation(rows, mapping, row)
            # Translation and rotation turn alike; HIL-SERL's adjoint adds a spurious rotation.
            moves = np.concatenate([turn @ moves[:3], turn @ moves[3:]])
        full = np.array([scale.translation_m] * 3 + [scale.rotation_rad] * 3)
        ours[place, :6], ours[place, 6] = moves / full, gripper
    beyond = int((np.abs(ours[:, :6]) > 1.0).any(axis=1).sum())
    return np.clip(ours, -1.0, 1.0).astype(np.float32), beyond


def _orientation(rows: _Rows, mapping: TransitionMapping, row: int) -> Float64[np.ndarray, "3 3"]:
    state = _state(rows, mapping, f"observations/{mapping.state}", row)
    if max(mapping.relative_rpy) >= len(state):
        msg = f"mapping.relative_rpy={mapping.relative_rpy}: {mapping.state!r} has {len(state)} entries"
        raise HilDaftError(msg)
    relative = from_euler(state[list(mapping.relative_rpy)])
    return matrix_of(multiply(from_euler(np.array(mapping.reset_rpy)), relative))


def _state(
    rows: _Rows, mapping: TransitionMapping, name: str, row: int
) -> Float64[np.ndarray, " n"]:
    state = np.asarray(rows.row(name, row), dtype=np.float64)
    # Observation histories are stacked in front: the last one is now.
    return state.reshape(-1, state.shape[-1])[-1]


def _episode(
    rows: _Rows,
    mapping: TransitionMapping,
    encoders: FrozenEncoders,
    begin: int,
    actions: Float32[np.ndarray, "t 7"],
    *,
    success: bool,
) -> Episode:
    builder = EpisodeBuilder(
        task=mapping.task,
        source="demo",
        robot=mapping.robot,
        seed=begin,
        policy_version=DEMONSTRATION_VERSION,
        encoder_hash=encoders.encoder_hash,
        action_scale=mapping.action_scale,
    )
    steps, closed = len(actions), 0.0
    for place in range(steps + 1):
        last = place == steps
        kind, row = ("next_observations", begin + steps - 1) if last else ("observations", begin + place)  # fmt: skip
        images = {
            name: to_view(_newest(rows.row(f"{kind}/{camera.key}", row)), camera, name)
            for name, camera in mapping.cameras.items()
        }
        opening = 1.0 - closed
        if mapping.jaws is not None:
            entry, high, low = mapping.jaws
            value = float(_state(rows, mapping, f"{kind}/{mapping.state}", row)[entry])
            opening = float(np.clip((value - low) / (high - low), 0.0, 1.0))
        proprio = np.array([opening, closed], np.float32)
        observation = Observation(images=images, proprio=proprio)
        builder.observe(observation, encoders.encode(observation, mapping.task))
        if not last:
            ends = place == steps - 1
            builder.act(
                policy_action=None,
                human_action=actions[place],
                executed_action=actions[place],
                reward=float(ends and success),
                terminated=ends and success,
                truncated=ends and not success,
            )
            closed = float(actions[place, 6] > 0)
    return builder.build(label_tweaks)


def _newest(image: object) -> np.ndarray:
    array = np.asarray(image)
    return cast(np.ndarray, array[-1]) if array.ndim == 4 else array
