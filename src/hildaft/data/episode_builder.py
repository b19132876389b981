"""Collects the steps of one episode as the worker lives them. NumPy only."""

import io
from collections.abc import Callable
from typing import Final, TypeAlias, final

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8
from PIL import Image

from hildaft.types import (
    ACTION_DIM,
    NULL_COMMAND,
    Action,
    ActionScale,
    Encoded,
    Episode,
    HilDaftError,
    Observation,
    RefinementCommand,
    Source,
)

JPEG_QUALITY: Final = 95

Labeller: TypeAlias = Callable[
    [Float32[np.ndarray, "t 7"], Bool[np.ndarray, " t"], ActionScale],
    tuple[Int[np.ndarray, " t"], Float32[np.ndarray, "t 3"]],
]
"""Eq. 12-13: human actions (NaN rows where none), which rows are human, the action scale
-> label index, displacement (m)."""


@final
class EpisodeBuilder:
    """Collects one episode: `observe` first, then `act` and `observe` in turn, then `build`."""

    def __init__(
        self,
        *,
        task: str,
        source: Source,
        robot: str,
        seed: int,
        policy_version: int,
        encoder_hash: str,
        action_scale: ActionScale,
        keep_images: bool = True,
    ) -> None:
        self._task, self._robot, self._seed = task, robot, seed
        self._source: Source = source
        self._policy_version, self._encoder_hash = policy_version, encoder_hash
        self._scale, self._keep_images = action_scale, keep_images
        self._encoded: list[Encoded] = []
        self._images: dict[str, list[UInt8[np.ndarray, "h w 3"]]] = {}
        self._actions: list[tuple[Action | None, Action | None, Action]] = []
        self._spoken: list[int] = []
        self._outcomes: list[tuple[float, bool, bool]] = []

    def __len__(self) -> int:
        return len(self._outcomes)

    def observe(self, observation: Observation, encoded: Encoded) -> None:
        """Takes the next observation; copies its images, for a robot may reuse its buffers."""
        self._encoded.append(encoded)
        if self._keep_images:
            for camera, image in observation.images.items():
                self._images.setdefault(camera, []).append(image.copy())

    def act(
        self,
        *,
        policy_action: Action | None,
        human_action: Action | None,
        executed_action: Action,
        spoken: RefinementCommand = NULL_COMMAND,
        reward: float,
        terminated: bool,
        truncated: bool,
    ) -> None:
        """Takes one control step; None where the policy or the human did not act."""
        self._actions.append((policy_action, human_action, executed_action))
        self._spoken.append(spoken.index)
        self._outcomes.append((reward, terminated, truncated))

    def end(self, *, reward: float, terminated: bool, truncated: bool) -> None:
        """Gives the newest step another outcome: the person has judged what it led to.

        Raises:
            HilDaftError: if there is no step yet.
        """
        if not self._outcomes:
            msg = f"episode of task={self._task!r}: it has no step to be judged yet; take one first"
            raise HilDaftError(msg)
        self._outcomes[-1] = (reward, terminated, truncated)

    def build(self, label: Labeller) -> Episode:
        """Encodes the images as JPEG and labels the human's rows.

        Raises:
            HilDaftError: if there is no step, or not exactly one observation more than steps.
        """
        steps = len(self)
        if steps == 0 or len(self._encoded) != steps + 1:
            msg = (
                f"episode of task={self._task!r}: {steps} steps and "
                f"{len(self._encoded)} observations; at least one step, and one observation more "
                "than steps, are needed"
            )
            raise HilDaftError(msg)
        policy, human, executed = (
            _stack_actions(column) for column in zip(*self._actions, strict=True)
        )
        is_human = _present(human)
        refinement, displacement_m = label(human, is_human, self._scale)
        reward, terminated, truncated = zip(*self._outcomes, strict=True)
        return Episode(
            task=self._task,
            source=self._source,
            robot=self._robot,
            seed=self._seed,
            policy_version=self._policy_version,
            success=bool(terminated[-1] and reward[-1] > 0),
            h=np.stack([step.h for step in self._encoded]),
            features=np.stack([step.features for step in self._encoded]),
            proprio=np.stack([step.proprio for step in self._encoded]),
            policy_action=policy,
            human_action=human,
            executed_action=executed,
            is_intervention=is_human & _present(policy),
            spoken=np.array(self._spoken, dtype=np.int64),
            refinement=refinement,
            displacement_m=displacement_m,
            reward=np.array(reward, dtype=np.float32),
            terminated=np.array(terminated, dtype=np.bool_),
            truncated=np.array(truncated, dtype=np.bool_),
            images={name: tuple(map(encode_jpeg, frames)) for name, frames in self._images.items()},
            encoder_hash=self._encoder_hash,
        )


def encode_jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """RGB to JPEG at quality 95 with full colour resolution: bolts are small and coloured."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """JPEG to RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _stack_actions(column: tuple[Action | None, ...]) -> Float32[np.ndarray, "t 7"]:
    absent = np.full(ACTION_DIM, np.nan, dtype=np.float32)
    return np.stack([absent if action is None else action for action in column])


def _present(actions: Float32[np.ndarray, "t 7"]) -> Bool[np.ndarray, " t"]:
    return np.logical_not(np.any(np.isnan(actions), axis=1, keepdims=True))[:, 0]
