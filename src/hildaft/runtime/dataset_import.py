"""Episodes of LeRobot datasets into our store: mapped to our actions and cameras, encoded by our networks."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float32, UInt8

from hildaft.data.episode_builder import EpisodeBuilder, decode_jpeg, encode_jpeg
from hildaft.data.episodes import EpisodeStore
from hildaft.data.import_ledger import ImportLedger, digest_of, fingerprint
from hildaft.data.lerobot_format import ACTION, IMAGE, STATE, DatasetInfo, read_info
from hildaft.data.lerobot_import import RawEpisode, decode, iterate_raw
from hildaft.robots.gym_config import MOTIONS, GymAction, GymCamera
from hildaft.robots.gym_images import to_view
from hildaft.runtime.interaction import DEMONSTRATION_VERSION, FrozenEncoders
from hildaft.teleop.talk import label_tweaks
from hildaft.types import CONTROL_HZ, ActionScale, Episode, HilDaftError, Observation, Source


@dataclass(frozen=True, kw_only=True)
class DatasetMapping:
    """What the columns of a dataset that others recorded mean."""

    tasks: dict[str, str]
    """Our task name by task text; episodes of other texts are left out."""
    cameras: dict[str, GymCamera]
    """`head` and `wrist`: source `observation`, key the image feature's name."""
    action: tuple[GymAction, ...]
    """What each entry of `action` means, in its order, and its unit, per frame of the dataset."""
    robot: str = "imported"
    """Identity recorded with the episodes."""
    jaws: tuple[int, float, float] | None = None
    """Entry of `observation.state` with the jaw opening, its value when open and when closed."""
    success: Literal["all", "reward", "next.success"] = "all"
    """Episodes that count as successes: all of them (curated demonstrations), those whose last `next.reward` is
    positive, or those whose last `next.success` is true."""
    action_scale: ActionScale = field(default_factory=ActionScale)
    """Of the robot the data is for; larger actions are clipped, and counted."""


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """What an import did."""

    episodes: int
    skipped: int
    """Episodes of tasks that the mapping does not name."""
    present: int
    """Episodes that an earlier import had added."""
    clipped: float
    """Share of steps with an action beyond the action scale."""


def import_dataset(
    folder: Path,
    store: EpisodeStore,
    encoders: FrozenEncoders,
    tasks: tuple[str, ...],
    mapping: DatasetMapping | None,
    on_episode: Callable[[int], None] = lambda _: None,
) -> ImportResult:
    """Adds a dataset's episodes to a store, one at a time; an import that was stopped goes on.

    Raises:
        HilDaftError: a dataset of others without a mapping, or one that does not fit it.
    """
    info = read_info(folder)
    if mapping is None and info.ours is None:
        features = "; ".join(_described(name, f) for name, f in info.features.items())
        msg = (
            f"dataset {folder}: it was not exported by HiL-DAFT; say what its columns mean with --map FILE."
            f" It has {features}"
        )
        raise HilDaftError(msg)
    if mapping is not None:
        _require_fit(info, mapping)
    frames = 1 if mapping is None else _frames_per_step(info)
    ledger = ImportLedger(store)
    counts = {"skipped": 0, "present": 0}

    def name_of(raw: RawEpisode) -> str:
        return fingerprint(raw.task, np.asarray(raw.columns[ACTION]), np.array([raw.index]))

    def task_of(raw: RawEpisode) -> str:
        if mapping is None:
            return str(raw.meta["hildaft/task"])
        return mapping.tasks.get(raw.task, "")

    def meaning_of(raw: RawEpisode) -> str:
        # Of its tasks only the one that counts here: naming another text later changes nothing for this episode.
        return digest_of(mapping and replace(mapping, tasks={}), task_of(raw), frames)

    def skips(raw: RawEpisode) -> bool:
        """Before its images are decoded."""
        other = task_of(raw) not in tasks
        there = not other and ledger.has(name_of(raw), meaning_of(raw))
        counts["skipped" if other else "present"] += int(other or there)
        return other or there

    added = clipped = steps = 0
    for raw in iterate_raw(folder, skips):
        if mapping is None:
            episode = _ours(raw, info, encoders, task_of(raw))
        else:
            actions = _steps_of(raw, mapping, frames)
            clipped += int((np.abs(actions[:, :6]) > 1.0).any(axis=1).sum())
            bounded = np.clip(actions, -1.0, 1.0)
            episode = _theirs(raw, mapping, encoders, task_of(raw), bounded, frames)
        ledger.append(name_of(raw), episode, meaning_of(raw))
        steps += len(episode)
        added += 1
        on_episode(added)
    return ImportResult(episodes=added, **counts, clipped=clipped / max(1, steps))


def map_actions(
    actions: Float32[np.ndarray, "t n"], mapping: DatasetMapping
) -> Float32[np.ndarray, "t 7"]:
    """Actions of others in our layout and units, not clipped; entries they lack are 0, a missing gripper is open."""
    ours = np.zeros((len(actions), 7), np.float32)
    ours[:, 6] = -1.0
    scale = mapping.action_scale
    for column, entry in enumerate(mapping.action):
        values = actions[:, column].astype(np.float64)
        match entry.means:
            case "fixed":
                continue
            case "gripper":
                share = (values - entry.open) / (entry.closed - entry.open)
                ours[:, 6] = np.where(share > 0.5, 1.0, -1.0)
            case motion:
                index = MOTIONS.index(motion)
                full = scale.translation_m if index < 3 else scale.rotation_rad
                ours[:, index] = values * entry.unit / full
    return ours


def gather_steps(
    actions: Float32[np.ndarray, "t 7"], frames: int
) -> Float32[np.ndarray, "steps 7"]:
    """One action of every so many frames' actions; the last step has those that are left.

    Motions are added up and the gripper is the last frame's. Rotations are added up as vectors: within a tenth of a
    second they are small, and what they turn in between is of second order.
    """
    starts = np.arange(0, len(actions), frames)
    steps = actions[np.minimum(starts + frames, len(actions)) - 1]
    steps[:, :6] = np.add.reduceat(actions[:, :6], starts, axis=0)
    return steps


def _steps_of(
    raw: RawEpisode, mapping: DatasetMapping, frames: int
) -> Float32[np.ndarray, "steps 7"]:
    return gather_steps(map_actions(raw.columns[ACTION].astype(np.float32), mapping), frames)


def require_opening(jaws: tuple[int, float, float]) -> None:
    """Refuses jaws that no opening can be told from, whatever the data."""
    entry, high, low = jaws
    if entry < 0:
        msg = f"mapping.jaws={list(jaws)}: its first number is an entry of the state; name one from 0 on"
        raise HilDaftError(msg)
    if high == low:
        msg = (
            f"mapping.jaws={list(jaws)}: open and closed have the same value; give two that differ"
        )
        raise HilDaftError(msg)


def _frames_per_step(info: DatasetInfo) -> int:
    share = info.fps / CONTROL_HZ
    if share < 1 or not share.is_integer():
        msg = (
            f"dataset {info.folder}: meta/info.json says fps={info.fps:g}; whole multiples of our control rate,"
            f" {CONTROL_HZ:g} Hz, are allowed: resample the dataset to one, or record it anew"
        )
        raise HilDaftError(msg)
    return int(share)


def _require_jaws(info: DatasetInfo, jaws: tuple[int, float, float]) -> None:
    require_opening(jaws)
    if STATE not in info.features:
        msg = f"mapping.jaws={list(jaws)}: the dataset has no column {STATE}; leave jaws out: the commands tell then"
        raise HilDaftError(msg)
    width = int(np.prod(info.features[STATE].get("shape") or [0]))
    if jaws[0] >= width:
        msg = f"mapping.jaws={list(jaws)}: {STATE} has entries 0 to {width - 1}; name one of these, or leave jaws out"
        raise HilDaftError(msg)


def _described(name: str, feature: Any) -> str:  # noqa: ANN401 - of somebody's info.json
    shape = "x".join(map(str, feature.get("shape") or ()))
    names = feature.get("names")
    said = (
        f" ({', '.join(map(str, names))})"
        if isinstance(names, list) and "images" not in name
        else ""
    )
    return f"{name} {feature.get('dtype')} {shape}{said}"


def _require_fit(info: DatasetInfo, mapping: DatasetMapping) -> None:
    width = int(np.prod(info.features.get(ACTION, {}).get("shape") or [0]))
    if width != len(mapping.action):
        msg = f"mapping.action: {len(mapping.action)} entries are given, the dataset's action has {width}"
        raise HilDaftError(msg)
    for name, camera in mapping.cameras.items():
        if camera.key not in info.cameras:
            there = ", ".join(info.cameras) or "no camera"
            msg = f"mapping.cameras.{name}.key={camera.key!r}: {there} is in the dataset"
            raise HilDaftError(msg)
    if set(mapping.cameras) != {"head", "wrist"}:
        msg = f"mapping.cameras={sorted(mapping.cameras)}: head and wrist are needed; one camera may feed both"
        raise HilDaftError(msg)
    if mapping.jaws is not None:
        _require_jaws(info, mapping.jaws)
    needed = {"reward": "next.reward", "next.success": "next.success"}.get(mapping.success)
    if needed and needed not in info.features:
        msg = (
            f"mapping.success={mapping.success!r}: the dataset has no column {needed};"
            " use 'all' if it holds successes only"
        )
        raise HilDaftError(msg)


def _ours(raw: RawEpisode, info: DatasetInfo, encoders: FrozenEncoders, task: str) -> Episode:
    """An episode that our exporter wrote: everything as it was, but for h and features, made anew."""
    assert info.ours is not None
    numbers = {text: index for index, text in enumerate(info.ours["phrases"])}
    columns, meta = raw.columns, raw.meta
    images = {
        name.removeprefix(IMAGE): (*map(_as_jpeg, frames), raw.final_images[name])
        for name, frames in raw.images.items()
    }
    assert raw.final_state is not None
    proprio = np.concatenate([columns[STATE], raw.final_state[None]]).astype(np.float32)
    encoded = [
        encoders.encode(
            Observation(
                images={name: decode_jpeg(frames[row]) for name, frames in images.items()},
                proprio=proprio[row],
            ),
            task,
        )
        for row in range(len(raw) + 1)
    ]
    done, truncated = (
        columns["next.done"].astype(np.bool_),
        columns["next.truncated"].astype(np.bool_),
    )
    return Episode(
        task=task,
        source=cast(Source, meta["hildaft/source"]),
        robot=str(meta["hildaft/robot"]),
        seed=int(meta["hildaft/seed"]),
        policy_version=int(meta["hildaft/policy_version"]),
        success=bool(meta["hildaft/success"]),
        h=np.stack([e.h for e in encoded]),
        features=np.stack([e.features for e in encoded]),
        proprio=np.stack([e.proprio for e in encoded]),
        policy_action=columns["policy_action"].astype(np.float32),
        human_action=columns["human_action"].astype(np.float32),
        executed_action=columns[ACTION].astype(np.float32),
        is_intervention=columns["is_intervention"].astype(np.bool_),
        spoken=np.array([numbers[text] for text in columns["spoken_command"]], np.int64),
        refinement=np.array([numbers[text] for text in columns["refinement_command"]], np.int64),
        displacement_m=columns["displacement_m"].astype(np.float32),
        reward=columns["next.reward"].astype(np.float32),
        terminated=done & ~truncated,
        truncated=truncated,
        images=images,
        encoder_hash=encoders.encoder_hash,
    )


def _as_jpeg(frame: bytes | UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Stored images as they are; a video's frames are made images again."""
    return frame if isinstance(frame, bytes) else encode_jpeg(frame)


def _theirs(
    raw: RawEpisode,
    mapping: DatasetMapping,
    encoders: FrozenEncoders,
    task: str,
    actions: Float32[np.ndarray, "t 7"],
    frames: int,
) -> Episode:
    """A demonstration somebody recorded: a step sees its first frame, and ends in the next step's.

    The dataset's last observation stands for the one after the last action too.
    """
    success = _is_success(raw, mapping)
    builder = EpisodeBuilder(
        task=task,
        source="demo",
        robot=mapping.robot,
        seed=raw.index,
        policy_version=DEMONSTRATION_VERSION,
        encoder_hash=encoders.encoder_hash,
        action_scale=mapping.action_scale,
    )
    steps = len(actions)
    closed = 0.0
    for row in range(steps + 1):
        shown = min(row * frames, len(raw) - 1)
        images = {
            name: to_view(decode(raw.images[camera.key][shown]), camera, name)
            for name, camera in mapping.cameras.items()
        }
        proprio = np.array([_opening(raw, mapping, shown, closed), closed], np.float32)
        observation = Observation(images=images, proprio=proprio)
        builder.observe(observation, encoders.encode(observation, task))
        if row < steps:
            last = row == steps - 1
            builder.act(
                policy_action=None,
                human_action=actions[row],
                executed_action=actions[row],
                reward=float(last and success),
                terminated=last and success,
                truncated=last and not success,
            )
            closed = float(actions[row, 6] > 0)
    return builder.build(label_tweaks)


def _is_success(raw: RawEpisode, mapping: DatasetMapping) -> bool:
    match mapping.success:
        case "all":
            return True
        case "reward":
            return float(np.asarray(raw.columns["next.reward"][-1]).reshape(-1)[0]) > 0
        case "next.success":
            return bool(np.asarray(raw.columns["next.success"][-1]).reshape(-1)[0])


def _opening(raw: RawEpisode, mapping: DatasetMapping, row: int, closed: float) -> float:
    if mapping.jaws is None:
        return 1.0 - closed
    entry, high, low = mapping.jaws
    value = float(np.asarray(raw.columns[STATE][row]).reshape(-1)[entry])
    return float(np.clip((value - low) / (high - low), 0.0, 1.0))
