"""What a dataset holds, and what should make one look twice: of our episode stores and of LeRobot datasets."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from hildaft.data.episode_builder import decode_jpeg
from hildaft.data.episodes import EpisodeStore
from hildaft.data.lerobot_format import ACTION, read_info
from hildaft.data.lerobot_import import decode, iterate_raw
from hildaft.types import HilDaftError

NO_OP: Final = 0.02
"""Norm of the motion part below which a step does nothing: 0.3 mm at the default scale."""
_PREVIEWS: Final = 4
_PREVIEW_SIZE: Final = 128


@dataclass(frozen=True, kw_only=True)
class EpisodeView:
    """What an inspection looks at."""

    task: str
    source: str
    success: bool | None
    """None where the dataset does not tell."""
    actions: Float32[np.ndarray, "t n"]
    interventions: int
    frames: tuple[UInt8[np.ndarray, "_ _ 3"], ...]
    """First and last image of each camera, for the first few episodes only."""


@dataclass(kw_only=True)
class Inspection:
    """The findings."""

    episodes: int = 0
    steps: int = 0
    by_kind: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    successes: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    lengths: list[int] = field(default_factory=list[int])
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    still: int = 0
    interventions: int = 0
    told: bool = True
    warnings: list[str] = field(default_factory=list[str])

    def text(self, folder: Path) -> str:
        """The report."""
        lines = [f"{folder}: {self.episodes} episodes, {self.steps} steps"]
        for (task, source), count in sorted(self.by_kind.items()):
            good = f"{self.successes[task, source]} successful" if self.told else "success not told"
            lines.append(f"  {task:<24} {source:<8} {count:>5} episodes, {good}")
        lengths = np.array(self.lengths)
        lines.append(
            f"  length     shortest {lengths.min()}, median {int(np.median(lengths))}, longest {lengths.max()} steps"
        )
        lines.append(
            f"  no-op      {100 * self.still / self.steps:.1f} % of steps move less than {NO_OP} of full"
        )
        lines.append(f"  corrected  {100 * self.interventions / self.steps:.1f} % of steps")
        assert self.low is not None
        assert self.high is not None
        for entry, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            lines.append(f"  action {entry}   {low:+.3f} to {high:+.3f}")
        lines += [f"  warning    {warning}" for warning in self.warnings]
        return "\n".join(lines)


def inspect_dataset(folder: Path, previews: Path | None = None) -> Inspection:
    """Looks through a run folder, an episode folder or a LeRobot dataset; writes a contact sheet where asked to.

    Raises:
        HilDaftError: the folder is none of these, is empty, or a file in it is damaged.
    """
    found = Inspection()
    sheet: list[UInt8[np.ndarray, "h w 3"]] = []
    for view in _views(folder):
        _take(found, view)
        if view.frames:
            sheet.append(np.concatenate([_thumbnail(frame) for frame in view.frames], axis=1))
    if not found.episodes:
        msg = f"dataset {folder}: it holds no episode"
        raise HilDaftError(msg)
    _judge(found)
    if previews is not None and sheet:
        widest = max(row.shape[1] for row in sheet)
        rows = [np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in sheet]
        previews.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(previews)
    return found


def _views(folder: Path) -> Iterator[EpisodeView]:
    if (folder / "meta" / "info.json").exists():
        return _lerobot_views(folder)
    episodes = folder / "episodes" if (folder / "episodes").is_dir() else folder
    if not episodes.is_dir() or not any(episodes.glob("[0-9]*.safetensors")):
        msg = f"dataset {folder}: neither a run folder, nor a folder of episodes, nor a LeRobot dataset"
        raise HilDaftError(msg)
    return _our_views(EpisodeStore(episodes))


def _our_views(store: EpisodeStore) -> Iterator[EpisodeView]:
    for number, (_, episode) in enumerate(store.iterate()):
        shown = sorted(episode.images.items()) if number < _PREVIEWS else []
        yield EpisodeView(
            task=episode.task,
            source=episode.source,
            success=episode.success,
            actions=episode.executed_action,
            interventions=int(episode.is_intervention.sum()),
            frames=tuple(decode_jpeg(data) for _, f in shown for data in (f[0], f[-1])),
        )


def _lerobot_views(folder: Path) -> Iterator[EpisodeView]:
    info = read_info(folder)
    for raw in iterate_raw(folder):
        told = "next.success" in raw.columns or "next.reward" in raw.columns
        outcome = raw.columns.get("next.success", raw.columns.get("next.reward"))
        corrected = raw.columns.get("is_intervention", raw.columns.get("intervention"))
        shown = sorted(raw.images.items()) if raw.index < _PREVIEWS else []
        actions = np.asarray(raw.columns[ACTION], np.float32).reshape(len(raw), -1)
        yield EpisodeView(
            task=raw.task,
            source=str(raw.meta.get("hildaft/source", info.robot_type)),
            success=bool(np.any(np.asarray(outcome) > 0)) if told else None,
            actions=actions,
            interventions=0 if corrected is None else int(np.asarray(corrected).sum()),
            frames=tuple(decode(image) for _, f in shown for image in (f[0], f[-1])),
        )


def _take(found: Inspection, view: EpisodeView) -> None:
    kind = (view.task, view.source)
    found.by_kind[kind] += 1
    found.told &= view.success is not None
    found.successes[kind] += bool(view.success)
    found.episodes += 1
    found.steps += len(view.actions)
    found.lengths.append(len(view.actions))
    found.interventions += view.interventions
    low, high = view.actions.min(axis=0), view.actions.max(axis=0)
    if found.low is None or found.high is None:
        found.low, found.high = low, high
    elif len(low) != len(found.low):
        msg = f"dataset: actions of {len(low)} and of {len(found.low)} entries in one dataset"
        raise HilDaftError(msg)
    else:
        found.low, found.high = np.minimum(found.low, low), np.maximum(found.high, high)
    moving = view.actions[:, : max(1, view.actions.shape[1] - 1)]
    found.still += int((np.linalg.norm(moving, axis=1) < NO_OP).sum())
    if not np.isfinite(view.actions).all():
        found.warnings.append(f"episode {found.episodes - 1}: an action is not finite")


def _judge(found: Inspection) -> None:
    assert found.low is not None
    assert found.high is not None
    if found.still > 0.2 * found.steps:
        share = 100 * found.still / found.steps
        found.warnings.append(
            f"{share:.0f} % of the steps do nothing; cut the pauses, or the policy learns to wait"
        )
    for entry in np.flatnonzero(found.low == found.high):
        found.warnings.append(f"action {entry} never changes ({found.low[entry]:+.3f})")
    if found.high.max() > 1.0 or found.low.min() < -1.0:
        found.warnings.append(
            "actions beyond -1 to 1: in other units than ours? import with a mapping"
        )
    if min(found.lengths) < 3:
        found.warnings.append(
            f"{sum(n < 3 for n in found.lengths)} episodes have fewer than 3 steps"
        )
    for kind, count in found.by_kind.items():
        if found.told and kind[1] == "demo" and found.successes[kind] < count:
            failed = count - found.successes[kind]
            found.warnings.append(f"{failed} demonstrations of {kind[0]!r} did not succeed")


def _thumbnail(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    height, width = frame.shape[:2]
    size = (round(_PREVIEW_SIZE * width / height), _PREVIEW_SIZE)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))
