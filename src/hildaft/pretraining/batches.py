"""Batches of frames, each with an instruction drawn anew: a skill with its teacher's action, or random words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from torch import Tensor

from hildaft.models.backbone import ImageEncoder, camera_image
from hildaft.models.octo_tiny import OctoTiny
from hildaft.models.words import WORD_BUCKETS
from hildaft.pretraining.skills import SKILLS, skill_actions
from hildaft.pretraining.targets import geometry_targets
from hildaft.types import ActionScale

SKETCH_DIM: Final = 16
"""Numbers that summarise the words of an instruction."""

_RANDOM_SHARE: Final = 0.5
_SKETCH_SEED: Final = 20
_READ_AT_ONCE: Final = 50


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one training step sees."""

    pixels: Mapping[str, Float[Tensor, "b 3 s s"]]
    """In [-1, 1], by camera, at the sides the network takes."""
    geometry: Float[Tensor, "b 77"]
    """`geometry_targets` of the frames."""
    reading: Float[Tensor, "b r"]
    """What the image encoder reads off the frames; of width 0 for a network that is not told."""
    points: Float[Tensor, "b 2 k 2"]
    """Key points in [-1, 1] of each camera's image, right and down."""
    inside: Bool[Tensor, "b 2 k"]
    """Which key points the camera sees."""
    words: Int[Tensor, "b l"]
    """Word buckets, padded with 0."""
    word_mask: Bool[Tensor, "b l"]
    """Which words are there."""
    sketch: Float[Tensor, "b 16"]
    """Random projection of the bag of words."""
    action: Float[Tensor, "b 7"]
    """The teacher's action under the instruction."""
    has_action: Bool[Tensor, " b"]
    """False under random words."""


@runtime_checkable
class FrameSet(Protocol):
    """What batches are made of."""

    @property
    def labels(self) -> Mapping[str, np.ndarray]:
        """Label arrays by name, one row per frame."""
        ...

    def __len__(self) -> int: ...

    def images(self, rows: Int[np.ndarray, " b"]) -> dict[str, UInt8[np.ndarray, "b s s 3"]]:
        """Images of some frames, by camera."""
        ...


@runtime_checkable
class BatchSet(Protocol):
    """Batches of chosen frames."""

    def __len__(self) -> int: ...

    def at(self, rows: Int[np.ndarray, " b"], rng: np.random.Generator) -> Batch:
        """A batch of these frames; `rng` draws the instructions."""
        ...


@final
class Batches:
    """Draws batches from frames: batch t depends on (seed, t) alone, so that training resumes exactly."""

    def __init__(
        self,
        frames: FrameSet,
        model: OctoTiny,
        seed: int,
        sides: Mapping[str, int],
        reader: ImageEncoder | None = None,
    ) -> None:
        """Draws batches of these frames.

        Args:
            frames: to draw from.
            model: gives the word buckets.
            seed: of the order and of the instructions.
            sides: size in px at which each camera is read.
            reader: reads every frame once, now, for `Batch.reading`.
        """
        self._frames = frames
        self._reading = np.zeros((len(frames), 0), np.float32)
        if reader is not None:
            self._reading = read_frames(frames, reader)
        self._sides = dict(sides)
        self._seed = seed
        self._geometry = geometry_targets(frames.labels)
        scale = ActionScale()
        self._actions = np.stack([skill_actions(s, frames.labels, scale) for s in SKILLS])
        self._phrases = [[model.words.ids(text).numpy() for text in s.phrases] for s in SKILLS]
        self._length = model.config.language_tokens
        rng = np.random.default_rng(_SKETCH_SEED)
        self._sketch = rng.standard_normal((WORD_BUCKETS, SKETCH_DIM)).astype(np.float32)

    def __len__(self) -> int:
        return len(self._frames)

    def draw(self, step: int, size: int) -> Batch:
        """Batch number `step`: frames without replacement within an epoch."""
        start = step * size
        epoch, first = divmod(start, len(self._frames))
        order = self._order(epoch)
        rows = order[first : first + size]
        if len(rows) < size:
            rows = np.concatenate([rows, self._order(epoch + 1)[: size - len(rows)]])
        return self.at(rows, np.random.default_rng([self._seed, 1, step]))

    def at(self, rows: Int[np.ndarray, " b"], rng: np.random.Generator) -> Batch:
        """A batch of these frames; `rng` draws the instructions."""
        words, mask, skills = self._instructions(len(rows), rng)
        bag = self._sketch[words] * mask[:, :, None]
        sketch = bag.sum(1) / np.sqrt(mask.sum(1, keepdims=True))
        labels = self._frames.labels
        images = {k: torch.from_numpy(v) for k, v in self._frames.images(rows).items()}
        return Batch(
            pixels={name: camera_image(images, name, side) for name, side in self._sides.items()},
            geometry=torch.from_numpy(self._geometry[rows]),
            reading=torch.from_numpy(self._reading[rows]),
            points=torch.from_numpy(labels["pixels"][rows]) * 2 - 1,
            inside=torch.from_numpy(labels["inside"][rows]),
            words=torch.from_numpy(words),
            word_mask=torch.from_numpy(mask),
            sketch=torch.from_numpy(sketch),
            action=torch.from_numpy(self._actions[np.maximum(skills, 0), rows]),
            has_action=torch.from_numpy(skills >= 0),
        )

    def _order(self, epoch: int) -> Int[np.ndarray, " n"]:
        return np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._frames))

    def _instructions(
        self, count: int, rng: np.random.Generator
    ) -> tuple[Int[np.ndarray, "b l"], Bool[np.ndarray, "b l"], Int[np.ndarray, " b"]]:
        words = np.zeros((count, self._length), np.int64)
        mask = np.zeros((count, self._length), np.bool_)
        skills = np.full(count, -1)
        for row in range(count):
            if rng.random() < _RANDOM_SHARE:
                ids = rng.integers(0, WORD_BUCKETS, int(rng.integers(2, 8)))
            else:
                skills[row] = rng.integers(len(SKILLS))
                phrases = self._phrases[int(skills[row])]
                ids = phrases[int(rng.integers(len(phrases)))]
            words[row, : len(ids)] = ids
            mask[row, : len(ids)] = True
        return words, mask, skills


def read_frames(frames: FrameSet, reader: ImageEncoder) -> Float32[np.ndarray, "n r"]:
    """What an image encoder reads off all frames."""
    read = np.empty((len(frames), reader.dim), np.float32)
    with torch.inference_mode():
        for first in range(0, len(frames), _READ_AT_ONCE):
            rows = np.arange(first, min(first + _READ_AT_ONCE, len(frames)))
            images = {k: torch.from_numpy(v) for k, v in frames.images(rows).items()}
            read[rows] = reader.encode(images).numpy()
    return read
