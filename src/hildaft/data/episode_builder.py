"""Collects the steps of one episode as the worker lives them. NumPy only."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, final, runtime_checkable

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
_IMAGE: Final = "image/"

Labeller: TypeAlias = Callable[
    [Float32[np.ndarray, "t 7"], Bool[np.ndarray, " t"], ActionScale],
    tuple[Int[np.ndarray, " t"], Float32[np.ndarray, "t 3"]],
]
"""Eq. 12-13: human actions (NaN rows where none), which rows are human, the action scale
-> label index, displacement (m)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeHead:
    """What is known of an episode before its first step."""

    task: str
    source: Source
    robot: str
    seed: int
    policy_version: int
    encoder_hash: str
    action_scale: ActionScale


@runtime_checkable
class Journal(Protocol):
    """Where an episode's steps are kept while it still runs, so that a kill loses none."""

    def begin(self, head: EpisodeHead) -> None:
        """An episode begins."""
        ...

    def append(self, row: Mapping[str, np.ndarray]) -> None:
        """One observation, with the step that led to it where there was one; or another outcome of the newest step."""
        ...

    def discard(self) -> None:
        """The episode under way is thrown away."""
        ...


@final
class EpisodeBuilder:
    """Collects one episode: `observe` first, then `act` and `observe` in turn, then `build`.

    With a `journal` every observation goes there at once, with the step before it.
    """

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
        journal: Journal | None = None,
    ) -> None:
        self._task, self._robot, self._seed = task, robot, seed
        self._source: Source = source
        self._policy_version, self._encoder_hash = policy_version, encoder_hash
        self._scale, self._keep_images = action_scale, keep_images
        self._journal = journal
        self._encoded: list[Encoded] = []
        self._images: dict[str, list[bytes]] = {}
        self._actions: list[tuple[Action | None, Action | None, Action]] = []
        self._spoken: list[int] = []
        self._outcomes: list[tuple[float, bool, bool]] = []

    def __len__(self) -> int:
        return len(self._outcomes)

    def observe(self, observation: Observation, encoded: Encoded) -> None:
        """Takes the next observation; its images are encoded at once, for a robot may reuse its buffers."""
        images = observation.images.items() if self._keep_images else ()
        self.observe_encoded({camera: encode_jpeg(image) for camera, image in images}, encoded)

    def observe_encoded(self, images: Mapping[str, bytes], encoded: Encoded) -> None:
        """Takes the next observation, its images as JPEG."""
        self._encoded.append(encoded)
        for camera, image in images.items():
            self._images.setdefault(camera, []).append(image)
        if self._journal is not None:
            if not self._outcomes:
                self._journal.begin(self._head())
            self._journal.append(self._newest_row(images))

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
        if self._journal is not None:
            self._journal.append(_outcome_row(*self._outcomes[-1]))

    def discard(self) -> None:
        """Throws the episode away, from the journal too."""
        if self._journal is not None:
            self._journal.discard()

    def restore(self, row: Mapping[str, np.ndarray]) -> None:
        """Takes one row of a journal: the step, where it holds one, and the observation after it; or an outcome."""
        if "h" not in row:
            terminated, truncated = (bool(flag) for flag in row["ended"])
            self.end(reward=float(row["reward"][0]), terminated=terminated, truncated=truncated)
            return
        if "executed_action" in row:
            terminated, truncated = (bool(flag) for flag in row["ended"])
            self.act(
                policy_action=row.get("policy_action"),
                human_action=row.get("human_action"),
                executed_action=row["executed_action"],
                spoken=RefinementCommand.from_index(int(row["spoken"][0])),
                reward=float(row["reward"][0]),
                terminated=terminated,
                truncated=truncated,
            )
        encoded = Encoded(h=row["h"], features=row["features"], proprio=row["proprio"])
        images = {
            name.removeprefix(_IMAGE): column.tobytes()
            for name, column in row.items()
            if name.startswith(_IMAGE)
        }
        self.observe_encoded(images, encoded)

    def truncate(self) -> None:
        """Ends an episode that was cut off: its last step counts as truncated, unless it ended by itself."""
        reward, terminated, truncated = self._outcomes[-1]
        self._outcomes[-1] = (reward, terminated, truncated or not terminated)

    def _head(self) -> EpisodeHead:
        return EpisodeHead(
            task=self._task,
            source=self._source,
            robot=self._robot,
            seed=self._seed,
            policy_version=self._policy_version,
            encoder_hash=self._encoder_hash,
            action_scale=self._scale,
        )

    def _newest_row(self, images: Mapping[str, bytes]) -> dict[str, np.ndarray]:
        encoded = self._encoded[-1]
        row = {"h": encoded.h, "features": encoded.features, "proprio": encoded.proprio}
        row |= {_IMAGE + name: np.frombuffer(data, np.uint8) for name, data in images.items()}
        if self._outcomes:
            names = ("policy_action", "human_action", "executed_action")
            row |= {n: a for n, a in zip(names, self._actions[-1], strict=True) if a is not None}
            row["spoken"] = np.array([self._spoken[-1]])
            row |= _outcome_row(*self._outcomes[-1])
        return row

    def build(self, label: Labeller) -> Episode:
        """Labels the human's rows and puts everything together.

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
            images={name: tuple(frames) for name, frames in self._images.items()},
            encoder_hash=self._encoder_hash,
        )


def _outcome_row(reward: float, terminated: bool, truncated: bool) -> dict[str, np.ndarray]:
    return {
        "reward": np.array([reward], np.float64),
        "ended": np.array([terminated, truncated]),
    }


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
