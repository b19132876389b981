"""Replay buffers: demonstrations, rollouts and interventions per task, and the talk-and-tweak set.

Each task has two stores of frames, one for demonstrations and one for rollouts. A run of
consecutive steps that belongs in a store is written as one block: its frames, then the observation
after its last step. So every frame is there once, and the next state is the next row. Which rows
may be sampled is kept apart, as lists of row numbers; interventions and talk-and-tweak are such
lists over the demonstrations.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Literal, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from hildaft.data.row_index import RowIndex
from hildaft.types import ACTION_DIM, NULL_COMMAND, Episode, HilDaftError

Phase: TypeAlias = Literal["warmup", "online"]
Buffer: TypeAlias = Literal["demos", "rollouts", "interventions", "talk_tweak"]

BUFFERS: Final[tuple[Buffer, ...]] = ("demos", "rollouts", "interventions", "talk_tweak")


@dataclass(frozen=True, slots=True)
class Dims:
    """Widths of h, of the image features and of the proprioception."""

    h: int
    features: int
    proprio: int


@dataclass(frozen=True, slots=True)
class Batch:
    """b transitions of each of n tasks that follow one another in the order of the tasks."""

    tasks: range
    """Which tasks."""
    h: Float[Tensor, "n b d"]
    features: Float[Tensor, "n b f"]
    proprio: Float[Tensor, "n b p"]
    action: Float[Tensor, "n b 7"]
    reward: Float[Tensor, "n b"]
    not_terminal: Float[Tensor, "n b"]
    """0 where the episode truly ended; 1 elsewhere, truncation included."""
    mc_return: Float[Tensor, "n b"]
    """Discounted return to the episode's end."""
    next_h: Float[Tensor, "n b d"]
    next_features: Float[Tensor, "n b f"]
    next_proprio: Float[Tensor, "n b p"]
    from_demos: Bool[Tensor, "n b"]
    """Drawn from the demonstrations, which hold the interventions too."""
    is_chosen: Bool[Tensor, "n b"]
    """The policy or the human chose the action; False in a hand-over, in which the robot stands still or slows down."""

    def pooled(self) -> "Batch":
        """The same transitions as those of a single task."""
        whole = {
            item.name: rows.flatten(0, 1).unsqueeze(0)
            for item in fields(self)
            if isinstance(rows := getattr(self, item.name), Tensor)
        }
        return Batch(tasks=range(1), **whole)


@dataclass(frozen=True, slots=True)
class TalkTweakBatch:
    """b talk-and-tweak triplets of each of k tasks: those that have any."""

    h: Float[Tensor, "k b d"]
    features: Float[Tensor, "k b f"]
    proprio: Float[Tensor, "k b p"]
    action: Float[Tensor, "k b 7"]
    command: Int[Tensor, "k b"]
    """Index of the refinement command, never "[null]"."""
    tasks: tuple[int, ...]
    """Which tasks, as numbers in the order of the tasks."""


@dataclass(frozen=True, slots=True)
class States:
    """States alone, for diagnostics and for fitting the normalisation."""

    h: Float[Tensor, "b d"]
    features: Float[Tensor, "b f"]
    proprio: Float[Tensor, "b p"]

    @staticmethod
    def of(episodes: Sequence[Episode], device: torch.device) -> "States":
        """Every state of the episodes in which an action was taken."""
        return States(
            *(
                torch.from_numpy(np.concatenate(rows)).to(device)
                for rows in (
                    [episode.h[:-1] for episode in episodes],
                    [episode.features[:-1] for episode in episodes],
                    [episode.proprio[:-1] for episode in episodes],
                )
            )
        )


@final
class Replay:
    """Preallocated tensors on the learner's device; samples with one gather per field.

    `capacity` is the number of frames of each task's two stores; the oldest block of a full store
    is overwritten, and its rows leave every list. A `pooled` one has a single task, which every
    episode counts to, whatever its own is called.

    Paper: Alg. 1, lines 22, 25, 28-29.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        dims: Dims,
        *,
        discount: float,
        capacity: int = 32_768,
        to_rollouts: bool = False,
        encoder_hash: str | None = None,
        device: torch.device | None = None,
        pooled: bool = False,
    ) -> None:
        if capacity < 2:
            msg = f"replay capacity={capacity}: must be >= 2 frames; use 32768"
            raise HilDaftError(msg)
        if pooled and len(tasks) != 1:
            msg = f"replay tasks={tuple(tasks)}: a pooled replay has one"
            raise HilDaftError(msg)
        self._pooled = pooled
        self.tasks: Final = tuple(tasks)
        self.dims: Final = dims
        self._discount = discount
        self._capacity = capacity
        self._to_rollouts = to_rollouts
        self._device = device or torch.device("cpu")
        self._encoder_hash = encoder_hash
        rows = 2 * len(self.tasks) * capacity

        def column(*width: int, dtype: torch.dtype = torch.float32) -> Tensor:
            # Left unwritten: pages take memory as episodes fill them.
            return torch.empty(rows, *width, dtype=dtype, device=self._device)

        self._h, self._features = column(dims.h), column(dims.features)
        self._proprio, self._action = column(dims.proprio), column(ACTION_DIM)
        # As `_outcome` has them: one gather for what are single figures.
        self._outcome = column(4)
        self._command = column(dtype=torch.int64)
        self._robot = column(dtype=torch.int64)
        self._robots: list[str] = []
        self._head = dict.fromkeys(range(2 * len(self.tasks)), 0)
        self._rows: dict[Buffer, list[deque[int]]] = {
            name: [deque() for _ in self.tasks] for name in BUFFERS
        }
        self._index = {name: RowIndex(len(self.tasks), capacity, self._device) for name in BUFFERS}

    def add_episode(self, episode: Episode) -> None:
        """Routes an episode's steps to the buffers of its task, as Algorithm 1 does.

        Demonstrations go to demos. Online, the policy's steps go to rollouts; the human's go to
        interventions, to demos, and with words to talk-and-tweak (a correction that only rotates
        has none).

        Raises:
            HilDaftError: unknown task, evaluation episode, other encoders or widths, or too long.
        """
        task = self._check(episode)
        outcome = _outcome(episode, self._discount)
        human = episode.is_intervention
        if episode.source == "demo":
            self._write(task, "demos", episode, np.ones_like(human), outcome)
        else:
            self._write(task, "demos", episode, human, outcome)
            everything = np.ones_like(human)
            self._write(
                task, "rollouts", episode, everything if self._to_rollouts else ~human, outcome
            )
        for name in BUFFERS:
            self._index[name].rebuild(task, self._rows[name][task], self._robot)

    def counts(self) -> dict[str, dict[Buffer, int]]:
        """Number of transitions by task and buffer."""
        return {
            name: {buffer: len(self._rows[buffer][task]) for buffer in BUFFERS}
            for task, name in enumerate(self.tasks)
        }

    def sample(
        self,
        batch_per_task: int,
        generator: torch.Generator,
        phase: Phase,
        tasks: range | None = None,
    ) -> Batch:
        """Draws transitions of every task, or of `tasks`: demos in the warm-up, half demos, half rollouts online.

        The demos are the first rows of each task.

        Raises:
            HilDaftError: a buffer it draws from is empty.

        Paper: Alg. 1, lines 4, 12.
        """
        from_demos = batch_per_task if phase == "warmup" else batch_per_task // 2
        tasks = range(len(self.tasks)) if tasks is None else tasks
        numbers = torch.arange(tasks.start, tasks.stop, device=self._device)
        self._require_rows("demos", tasks)
        parts = [self._index["demos"].draw(numbers, from_demos, generator)]
        if from_demos < batch_per_task:
            rollouts = batch_per_task - from_demos
            self._require_rows("rollouts", tasks)
            parts.append(self._index["rollouts"].draw(numbers, rollouts, generator))
        rows = torch.cat(parts, dim=1)
        n, b = rows.shape
        both = torch.stack([rows, rows + 1]).flatten()
        h, next_h = self._h.index_select(0, both).view(2, n, b, -1)
        features, next_features = self._features.index_select(0, both).view(2, n, b, -1)
        proprio, next_proprio = self._proprio.index_select(0, both).view(2, n, b, -1)
        reward, not_terminal, mc_return, chosen = self._outcome[rows].unbind(-1)
        return Batch(
            tasks=tasks,
            h=h,
            features=features,
            proprio=proprio,
            action=self._action[rows],
            reward=reward,
            not_terminal=not_terminal,
            mc_return=mc_return,
            next_h=next_h,
            next_features=next_features,
            next_proprio=next_proprio,
            from_demos=(torch.arange(b, device=self._device) < from_demos).expand(n, b),
            is_chosen=chosen > 0,
        )

    def sample_talk_tweak(
        self,
        batch: int,
        generator: torch.Generator,
        multiple: int = 1,
        *,
        at_most: int | None = None,
        turn: int = 0,
    ) -> TalkTweakBatch:
        """Draws talk-and-tweak triplets, the same number of each task that has any, a multiple of `multiple`.

        With `at_most`, of no more tasks than that: those whose turn it is.

        Raises:
            HilDaftError: no task has any.
        """
        present = [task for task, rows in enumerate(self._rows["talk_tweak"]) if rows]
        if not present:
            msg = "talk-and-tweak set is empty: wait for interventions before updating refinement"
            raise HilDaftError(msg)
        if at_most is not None and at_most < len(present):
            first = turn * at_most % len(present)
            present = sorted((2 * present)[first : first + at_most])
        numbers = torch.tensor(present, device=self._device)
        count = max(multiple, batch // (len(present) * multiple) * multiple)
        rows = self._index["talk_tweak"].draw(numbers, count, generator)
        return TalkTweakBatch(
            h=self._h[rows],
            features=self._features[rows],
            proprio=self._proprio[rows],
            action=self._action[rows],
            command=self._command[rows],
            tasks=tuple(present),
        )

    def _require_rows(self, buffer: Buffer, tasks: range) -> None:
        for task in tasks:
            if not self._rows[buffer][task]:
                msg = (
                    f"replay buffer {buffer} of task {self.tasks[task]!r} is empty: "
                    "add episodes first"
                )
                raise HilDaftError(msg)

    def _check(self, episode: Episode) -> int:
        if not self._pooled and episode.task not in self.tasks:
            msg = f"episode task={episode.task!r}: the replay holds {', '.join(self.tasks)}"
            raise HilDaftError(msg)
        if episode.source == "eval":
            msg = "episode source='eval': evaluation episodes are not training data"
            raise HilDaftError(msg)
        widths = (episode.h.shape[1], episode.features.shape[1], episode.proprio.shape[1])
        if widths != (self.dims.h, self.dims.features, self.dims.proprio):
            msg = f"episode widths (h, features, proprio)={widths}: the replay holds {self.dims}"
            raise HilDaftError(msg)
        if self._encoder_hash not in (None, episode.encoder_hash):
            msg = (
                f"episode encoder_hash={episode.encoder_hash!r}: the replay holds "
                f"{self._encoder_hash!r}; rebuild them with `hildaft encode RUN`"
            )
            raise HilDaftError(msg)
        if len(episode) >= self._capacity:
            msg = f"episode of {len(episode)} steps: the replay's capacity is {self._capacity}"
            raise HilDaftError(msg)
        self._encoder_hash = episode.encoder_hash
        if episode.robot not in self._robots:
            self._robots.append(episode.robot)
        return 0 if self._pooled else self.tasks.index(episode.task)

    def _write(
        self,
        task: int,
        store: Literal["demos", "rollouts"],
        episode: Episode,
        belongs: Bool[np.ndarray, " t"],
        outcome: Float32[np.ndarray, "t 4"],
    ) -> None:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], belongs, [False]]).astype(np.int8)))
        for start, stop in edges.reshape(-1, 2):
            first = self._allocate(task, store, int(stop - start) + 1)
            frames, steps = slice(start, stop + 1), slice(start, stop)
            into_frames, into_steps = (
                slice(first, first + stop - start + 1),
                slice(first, first + stop - start),
            )
            self._h[into_frames] = torch.from_numpy(episode.h[frames]).to(self._device)
            self._features[into_frames] = torch.from_numpy(episode.features[frames]).to(
                self._device
            )
            self._proprio[into_frames] = torch.from_numpy(episode.proprio[frames]).to(self._device)
            for column, values in (
                (self._action, episode.executed_action),
                (self._outcome, outcome),
                (self._command, episode.refinement.astype(np.int64)),
            ):
                column[into_steps] = torch.from_numpy(values[steps]).to(self._device)
            self._robot[into_steps] = self._robots.index(episode.robot)
            for row, step in enumerate(range(start, stop), start=first):
                self._rows[store][task].append(row)
                if store == "demos" and episode.is_intervention[step]:
                    self._rows["interventions"][task].append(row)
                    if episode.refinement[step] != NULL_COMMAND.index:
                        self._rows["talk_tweak"][task].append(row)

    def _allocate(self, task: int, store: Literal["demos", "rollouts"], length: int) -> int:
        """Frees `length` consecutive frames, oldest first, and returns the first one's row."""
        number = 2 * task + (store == "rollouts")
        head, base = self._head[number], number * self._capacity
        if head + length > self._capacity:
            # A block never wraps: the frames left at the end stay empty until the next time round.
            self._evict(task, store, base + head, base + self._capacity)
            head = 0
        self._evict(task, store, base + head, base + head + length)
        self._head[number] = head + length
        return base + head

    def _evict(self, task: int, store: Literal["demos", "rollouts"], low: int, high: int) -> None:
        lists: tuple[Buffer, ...] = (
            ("rollouts",) if store == "rollouts" else ("demos", "interventions", "talk_tweak")
        )
        for name in lists:
            rows = self._rows[name][task]
            while rows and low <= rows[0] < high:
                rows.popleft()


def _outcome(episode: Episode, discount: float) -> Float32[np.ndarray, "t 4"]:
    """Reward, not terminal, return to the end, chosen."""
    returns = _returns(episode, discount)
    columns = (episode.reward, ~episode.terminated, returns, _is_chosen(episode))
    return np.stack(columns, axis=1).astype(np.float32)


def _is_chosen(episode: Episode) -> Bool[np.ndarray, " t"]:
    """Where what was executed is the policy's action, cut to its range, or the human's; or where none was recorded."""
    policy = np.clip(episode.policy_action, -1.0, 1.0)
    of_policy = (policy == episode.executed_action).all(axis=1) | np.isnan(policy).any(axis=1)
    return of_policy | ~np.isnan(episode.human_action).any(axis=1)


def _returns(episode: Episode, discount: float) -> Float[np.ndarray, " t"]:
    returns = np.zeros(len(episode), dtype=np.float32)
    following = 0.0
    for step in reversed(range(len(episode))):
        following = float(episode.reward[step]) + discount * following * (
            1.0 - float(episode.terminated[step])
        )
        returns[step] = following
    return returns
