"""Algorithm 1: the offline warm-up stage and the learning thread of the online stage."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from hildaft.algo.crew import Crew, Order
from hildaft.algo.dual_actor import acting_weights
from hildaft.data.episode_file import parse_episode, serialise_episode
from hildaft.data.replay import Batch, Phase, Replay, States, TalkTweakBatch
from hildaft.types import ActionScale, Episode, HilDaftError

Metrics = Mapping[str, float]

_ENCODERS: Final = "learner.encoder_hash"


@runtime_checkable
class Agent(Protocol):
    """A method's networks and updates, as the learner drives them: `DualActor`, or one of `hildaft.baselines`."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        ...

    @property
    def listens(self) -> bool:
        """Whether it has a use for the talk-and-tweak set."""
        ...

    @property
    def online_rows(self) -> Phase:
        """What the online updates draw: "warmup" stands for demonstrations and interventions alone."""
        ...

    @property
    def turns(self) -> Sequence[range]:
        """The groups of tasks that updates draw in turn; one group of all where tasks are few."""
        ...

    def fit_normalisation(self, h: Float[Tensor, "b d"], features: Float[Tensor, "b f"]) -> None:
        """Fits the standardisation of h and image features, before the first update."""
        ...

    def update_critics(self, batch: Batch, phase: Phase) -> Metrics:
        """One step of whatever estimates values."""
        ...

    def update_primary(
        self, batch: Batch, phase: Phase, talk_tweak: TalkTweakBatch | None = None
    ) -> Metrics:
        """One step of what acts in silence."""
        ...

    def update_refinement(self, batch: TalkTweakBatch) -> Metrics:
        """One step of what listens; called only where `listens`."""
        ...

    def diagnostics(self, states: States, scale: ActionScale | None = None) -> dict[str, float]:
        """Measures of the actors on held-out states."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """What a worker needs."""
        ...

    def state(self) -> dict[str, Tensor]:
        """A copy of everything training depends on, by name."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state` returned."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How much data, how many updates."""

    demonstrations: int = 20
    """Episodes recorded per task before the warm-up (Sec. V-A)."""
    warmup_updates: int = 2_000
    """Offline updates on the demonstrations, of actor and critics alike. Not in the paper. Ten times fewer than
    ConRFT's: what follows trains the actor on demonstrations too, and on the policy's own states beside."""
    online_transitions: int = 15_000
    """Transitions of the online stage, all tasks together (Sec. V-A)."""
    batch_size: int = 192
    """B; rounded down so that each task and buffer of an update gets the same whole share. Not in the
    paper; ConRFT's is 256."""
    update_to_data: float = 1.0
    """At most this many online updates per transition. Not in the paper."""
    critic_updates: int = 1
    """Online critic updates per update of the primary actor, each on its own rows. Alg. 1 says 1, ConRFT's code 2."""
    rollout_gate: int = 100
    """Rollout rows each task needs before the online updates begin (Alg. 1, line 9)."""
    talk_tweak_gate: int = 100
    """Talk-and-tweak rows needed before the refinement actor trains. Not in the paper."""
    refinement_batch_size: int = 96
    """Rows of the talk-and-tweak set per refinement update. Not in the paper."""

    def __post_init__(self) -> None:
        for name in (
            "demonstrations",
            "warmup_updates",
            "critic_updates",
            "batch_size",
            "refinement_batch_size",
        ):
            _require(name, getattr(self, name), minimum=1)
        for name in ("online_transitions", "rollout_gate", "talk_tweak_gate"):
            _require(name, getattr(self, name), minimum=0)
        if not 0 < self.update_to_data <= 16:
            msg = (
                f"training.update_to_data={self.update_to_data}: more than 0, at most 16 is allowed"
            )
            raise HilDaftError(msg)


def _require(name: str, value: int, minimum: int) -> None:
    if value < minimum:
        msg = f"training.{name}={value}: {minimum} or more is allowed"
        raise HilDaftError(msg)


@final
class Learner:
    """Owns the networks, the replay buffer and the update counters; knows no robot and no file."""

    def __init__(
        self,
        config: TrainingConfig,
        dual_actor: Agent,
        replay: Replay,
        seed: int,
        encoder_hash: str = "",
        crew: Crew | None = None,
    ) -> None:
        """`encoder_hash` names the frozen encoders and the table of commands the networks are trained on.

        With a crew of several, process 0's calls are repeated by the others, which are in `follow`.
        """
        self._crew = crew or Crew()
        self.config = config
        self.dual_actor = dual_actor
        self.replay = replay
        self.warmup_updates = 0
        self.online_updates = 0
        self.online_transitions = 0
        # Half demonstrations, half rollouts: an even share per task, and of every process.
        pair = 2 * self._crew.size
        tasks = max(len(turn) for turn in dual_actor.turns)
        self.batch_per_task = max(pair, config.batch_size // (pair * tasks) * pair)
        self._generator = torch.Generator().manual_seed(seed)
        self._encoder_hash = encoder_hash

    def add_episode(self, episode: Episode) -> None:
        """Routes one episode's rows into the buffers."""
        self._crew.tell(Order.EPISODE, lambda: serialise_episode(replace(episode, images={})))
        self.replay.add_episode(episode)
        if episode.source == "online":
            self.online_transitions += len(episode)

    def fit_normalisation(self, states: States) -> None:
        """Fits the standardisation of h and image features, before the first update."""
        columns = {"h": states.h, "features": states.features}
        self._crew.tell(Order.NORMALISE, lambda: save_safetensors(columns))
        self.dual_actor.fit_normalisation(**columns)

    def warm_up(
        self, until: int, on_metrics: Callable[[int, Metrics], None], stop: threading.Event
    ) -> None:
        """Stage I up to update `until`: critics by Cal-QL, primary actor by eq. 6, on demonstrations.

        Paper: Alg. 1, lines 2-3, 6, 8.
        """
        while self.warmup_updates < until and not stop.is_set():
            self._crew.tell(Order.WARM_UP)
            metrics = self._update_offline()
            if metrics:
                on_metrics(self.warmup_updates, metrics)

    @property
    def online_open(self) -> bool:
        """Whether each task has the rollout rows that the online updates wait for (Alg. 1, line 9)."""
        counts = self.replay.counts()
        return all(
            counts[task]["rollouts"] >= self.config.rollout_gate for task in self.replay.tasks
        )

    def catch_up(self, on_metrics: Callable[[int, Metrics], None], stop: threading.Event) -> None:
        """Stage II: online updates until the update-to-data ratio is met, or `stop` is set.

        Paper: Alg. 1, lines 9-11, 14, 17.
        """
        if not self.online_open:
            return
        target = int(self.online_transitions * self.config.update_to_data)
        while self.online_updates < target and not stop.is_set():
            self._crew.tell(Order.ONLINE)
            metrics = self._update_online()
            if metrics:
                on_metrics(self.online_updates, metrics)

    def follow(self) -> None:
        """What every process but the first does: the same as the first, at its word, until it is done.

        Raises:
            HilDaftError: another process is gone.
        """
        while True:
            order, payload = self._crew.hear()
            match order:
                case Order.EPISODE:
                    self.add_episode(parse_episode(0, Path("episode"), payload)[1])
                case Order.NORMALISE:
                    self.dual_actor.fit_normalisation(**load_safetensors(payload))
                case Order.STATE:
                    self.load_state(load_safetensors(payload))
                case Order.WARM_UP:
                    self._update_offline()
                case Order.ONLINE:
                    self._update_online()
                case Order.STOP | Order.CONFIG:
                    return

    def _update_offline(self) -> dict[str, float]:
        batch = self._batch("warmup", self.warmup_updates)
        critics = self.dual_actor.update_critics(batch, "warmup")
        metrics = {**critics, **self.dual_actor.update_primary(batch, "warmup")}
        self.warmup_updates += 1
        return metrics

    def _update_online(self) -> dict[str, float]:
        agent = self.dual_actor
        # All updates of critics and actor are of the same tasks, so that each has its share of either.
        for _ in range(self.config.critic_updates - 1):
            agent.update_critics(self._batch(agent.online_rows, self.online_updates), "online")
        batch = self._batch(agent.online_rows, self.online_updates)
        talk_tweak = None
        if agent.listens and self._talk_tweak_rows() >= max(1, self.config.talk_tweak_gate):
            talk_tweak = self._talk_tweak()
        metrics = dict(agent.update_critics(batch, "online"))
        metrics |= agent.update_primary(batch, "online", talk_tweak)
        if talk_tweak is not None:
            metrics |= agent.update_refinement(talk_tweak)
        self.online_updates += 1
        return metrics

    def _batch(self, rows: Phase, update: int) -> Batch:
        turns = self.dual_actor.turns
        tasks = turns[update % len(turns)]
        return self._crew.share(
            self.replay.sample(self.batch_per_task, self._generator, rows, tasks)
        )

    def _talk_tweak(self) -> TalkTweakBatch:
        turns = self.dual_actor.turns
        return self._crew.share(
            self.replay.sample_talk_tweak(
                self.config.refinement_batch_size,
                self._generator,
                self._crew.size,
                at_most=len(turns[0]),
                turn=self.online_updates,
            )
        )

    def _talk_tweak_rows(self) -> int:
        return sum(counts["talk_tweak"] for counts in self.replay.counts().values())

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs besides the episodes, as flat tensors."""
        counters = [self.warmup_updates, self.online_updates, self.online_transitions]
        return {
            "learner.counters": torch.tensor(counters, dtype=torch.int64),
            "learner.generator": self._generator.get_state(),
            _ENCODERS: torch.tensor(list(self._encoder_hash.encode()), dtype=torch.uint8),
            **{f"dual_actor.{name}": value for name, value in self.dual_actor.state().items()},
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state()`; `online_transitions` follows from the episodes added since.

        Raises:
            HilDaftError: the state was trained on other encoders.
        """
        require_encoders(state, self._encoder_hash)
        self._crew.tell(Order.STATE, lambda: save_safetensors(_copies(state)))
        counters = state["learner.counters"].tolist()
        self.warmup_updates, self.online_updates = int(counters[0]), int(counters[1])
        self._generator.set_state(state["learner.generator"])
        self.dual_actor.load_state(_dual_actor_part(state))


def _copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Tensors that share memory are refused by the format.
    return {name: tensor.clone().contiguous() for name, tensor in state.items()}


def require_encoders(state: Mapping[str, Tensor], encoder_hash: str) -> None:
    """Raises HilDaftError where a `Learner.state` was trained on other frozen encoders than these.

    States from before the encoders were recorded are let through.
    """
    found = bytes(state.get(_ENCODERS, torch.empty(0)).tolist()).decode(errors="replace")
    if found and encoder_hash and found != encoder_hash:
        msg = (
            f"checkpoint: trained on encoders {found[:12]}, the run's are now {encoder_hash[:12]} "
            "(another backbone, other weights or other words); bring back the old ones, or start "
            "from the stored episodes with `hildaft encode RUN`"
        )
        raise HilDaftError(msg)


def published_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a worker would have been sent when `Learner.state` gave this."""
    return acting_weights(_dual_actor_part(state))


def _dual_actor_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = "dual_actor."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
