"""Every task's ensemble of critics, with targets and optimiser: how they learn, and what they say.

Many tasks take turns, so that an update reads and writes the weights of a few: with eight rows to a critic, moving
its weights, gradients and moments through memory takes longer than the arithmetic.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hildaft.algo import losses
from hildaft.algo.actors import Actors
from hildaft.algo.config import DualActorConfig
from hildaft.algo.crew import Crew
from hildaft.algo.draws import Draws
from hildaft.algo.optimiser import FusedAdam
from hildaft.data.replay import Batch, Dims, Phase, TalkTweakBatch
from hildaft.models import critic
from hildaft.models.critic import Critics, CriticWeights


def take_turns(tasks: int, at_most: int) -> tuple[range, ...]:
    """Tasks in groups of `at_most` or fewer, as few and as even as can be; one group where `at_most` is 0.

    Groups are runs of tasks that follow one another, so that their weights are one piece of memory.
    """
    groups = -(-tasks // at_most) if at_most else 1
    edges = [tasks * group // groups for group in range(groups + 1)]
    return tuple(range(*edge) for edge in pairwise(edges))


@final
class Ensembles:
    """The critics of all tasks (Sec. IV-C); `turns` are the groups of tasks that are updated together.

    An update steps the critics, moments and targets of its group alone: the others neither move nor age.
    """

    def __init__(
        self,
        config: DualActorConfig,
        tasks: Sequence[str],
        actors: Actors,
        dims: Dims,
        seed: int,
        draws: Draws,
        crew: Crew,
    ) -> None:
        self.config: Final = config
        self.names: Final = ("all",) if config.shared_critic else tuple(tasks)
        """Whose critics they are."""
        many = config.has_critics and not config.shared_critic
        self.turns: Final = take_turns(len(tasks), config.tasks_per_update if many else 0)
        self._actors: Final = actors
        self._draws: Final = draws
        self._crew: Final = crew
        features = dims.features + (dims.h if config.critic_reads_h else 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            critics = Critics(config.critic, len(self.names), features, dims.proprio)
        self.critics: Final = critics.to(draws.generator.device)
        self.targets: Final = copy.deepcopy(self.critics).requires_grad_(False)
        groups = (range(1),) if config.shared_critic else self.turns
        self._learnt: Final = {group: _Learnt(self, group) for group in groups}
        self._of_one: Final = [
            self.critics.weights(range(i, i + 1)) for i in range(len(self.names))
        ]
        self._every: Final = _held(self.critics.weights(range(len(self.names))))
        # A task whose turn comes at every k-th update follows k times as far then.
        self._follow: Final = get_ema_multi_avg_fn((1.0 - config.target_rate) ** len(self.turns))

    def update(
        self, batch: Batch, phase: Phase, next_action: Float[Tensor, "n b 7"] | None = None
    ) -> Mapping[str, Float[Tensor, " n"]]:
        """One step of the critics of the batch's tasks, then of their targets; the losses and values, per task.

        The loss is the Bellman loss, and in the warm-up Cal-QL's term too.
        """
        if self.config.shared_critic:
            batch = batch.pooled()
        learnt = self._learnt[batch.tasks]
        features = self.features(batch.h, batch.features)
        target = self._bellman_target(batch, learnt.target_weights, next_action)
        if phase == "online":
            weights = learnt.weights
            state = critic.embed_state(weights, features, batch.proprio)
            q_value = critic.q_values(weights, state, batch.action.unsqueeze(2)).squeeze(3)
            bellman = losses.bellman_loss(q_value, target)
            gradients = torch.autograd.grad(bellman.sum(), list(weights.values()))
            measured = {"bellman_loss": bellman, "q_mean": q_value.detach().mean(dim=(1, 2))}
        else:
            gradients, measured = self._warmup_gradients(batch, features, target)
        learnt.optimiser.step(self._crew.average(gradients))
        self._follow(learnt.targets, learnt.optimiser.parameters, 0)
        return measured

    def features(
        self, h: Float[Tensor, "n b d"], features: Float[Tensor, "n b f"]
    ) -> Float[Tensor, "n b g"]:
        """What the critics read, standardised."""
        normalisation = self._actors.normalisation
        features = normalisation.standardise_features(features)
        if not self.config.critic_reads_h:
            return features
        return self.select(normalisation.standardise_h(h), features)

    def select(
        self, h: Float[Tensor, "n b d"], features: Float[Tensor, "n b f"]
    ) -> Float[Tensor, "n b g"]:
        """`features` of what is standardised already."""
        return torch.cat([features, h], dim=-1) if self.config.critic_reads_h else features

    def members_q(
        self,
        action: Float[Tensor, "n b 7"],
        batch: Batch | TalkTweakBatch,
        features: Float[Tensor, "n b g"] | None = None,
    ) -> Float[Tensor, "n e b"]:
        """Every member's value of each row's action; the critics are held fixed.

        `features`: what the critics read of the batch, where it is at hand.
        """
        return self._members_q((action,), batch, features)[0]

    def _members_q(
        self,
        actions: Sequence[Float[Tensor, "n b 7"]],
        batch: Batch | TalkTweakBatch,
        features: Float[Tensor, "n b g"] | None,
    ) -> list[Float[Tensor, "n e b"]]:
        """The state is embedded once for all the actions."""
        proprio = batch.proprio
        if features is None:
            features = self.features(batch.h, batch.features)
        rows = proprio.shape[:2]
        if self.config.shared_critic:
            features, proprio, *actions = (
                values.flatten(0, 1).unsqueeze(0) for values in (features, proprio, *actions)
            )
        weights = self._held_for(batch)
        state = critic.embed_state(weights, features, proprio)
        values = [critic.q_values(weights, state, a.unsqueeze(2)).squeeze(3) for a in actions]
        if self.config.shared_critic:
            return [v.squeeze(0).unflatten(1, rows).transpose(0, 1) for v in values]
        return values

    def mean_q(
        self,
        action: Float[Tensor, "n b 7"],
        batch: Batch | TalkTweakBatch,
        features: Float[Tensor, "n b g"] | None = None,
    ) -> Float[Tensor, "n b"]:
        """Mean over the ensemble of the value of each row's action (see `members_q`)."""
        return self.members_q(action, batch, features).mean(dim=1)

    def mean_q_and_advantage(
        self,
        action: Float[Tensor, "n b 7"],
        batch: Batch,
        features: Float[Tensor, "n b g"],
    ) -> tuple[Float[Tensor, "n b"], Float[Tensor, "n b"]]:
        """`mean_q` of the policy's action, and by how much that of the batch's own is above it, without gradient."""
        policy, data = self._members_q((action, batch.action), batch, features)
        q_value = policy.mean(dim=1)
        return q_value, data.mean(dim=1) - q_value.detach()

    def state(self) -> dict[str, Tensor]:
        """Networks and moments by name; not copies."""
        modules = {"critics": self.critics, "targets": self.targets}
        live = {
            f"{part}.{name}": tensor.detach()
            for part, module in modules.items()
            for name, tensor in module.state_dict().items()
        }
        for group, learnt in self._learnt.items():
            which = "" if len(self._learnt) == 1 else f"tasks {group.start}-{group.stop - 1}."
            live |= {
                f"optimisers.critics.{which}{name}": tensor
                for name, tensor in learnt.optimiser.state().items()
            }
        return live

    def _held_for(self, batch: Batch | TalkTweakBatch) -> CriticWeights:
        """The weights, without gradient, of the critics of the batch's tasks."""
        if self.config.shared_critic:
            return self._every
        if isinstance(batch, Batch):
            return self._learnt[batch.tasks].held
        first, members = batch.tasks[0], self.config.critic.members
        stop = first + len(batch.tasks)
        if batch.tasks == tuple(range(first, stop)):
            rows = slice(first * members, stop * members)
            return {name: weight[rows] for name, weight in self._every.items()}
        groups = [slice(task * members, (task + 1) * members) for task in batch.tasks]
        return {
            name: torch.cat([weight[rows] for rows in groups])
            for name, weight in self._every.items()
        }

    def _bellman_target(
        self,
        batch: Batch,
        weights: CriticWeights,
        next_action: Float[Tensor, "n b 7"] | None = None,
    ) -> Float[Tensor, "n b"]:
        """`next_action` takes the place of the primary actor's."""
        with torch.no_grad():
            if next_action is None:
                noise = self._draws.noise(batch.reward.shape)
                seen = self._actors.standardise(batch.next_h, batch.next_features)
                embedded = self._actors.embed_standard(*seen, batch.next_proprio)
                next_action = self._actors.primary.act(embedded, noise)
                features = self.select(*seen)
            else:
                features = self.features(batch.next_h, batch.next_features)
            state = critic.embed_state(weights, features, batch.next_proprio)
            next_q = critic.q_values(weights, state, next_action.unsqueeze(2)).squeeze(3)
            return losses.bellman_target(
                batch.reward,
                batch.not_terminal,
                next_q,
                self.config.discount,
                self.config.max_return if self.config.target_clip else None,
            )

    def _warmup_gradients(
        self, batch: Batch, features: Float[Tensor, "n b f"], target: Float[Tensor, "n b"]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Gradients of Bellman plus Cal-QL.

        One task at a time: tasks share no weight, and memory stays small.
        """
        config, m = self.config, self.config.calql_actions
        members = config.critic.members
        sampled = self._calql_actions(batch)
        held = self._learnt[batch.tasks].held
        gradients = [torch.empty_like(weight) for weight in held.values()]
        measured: dict[str, list[Tensor]] = {"bellman_loss": [], "calql_loss": [], "q_mean": []}
        for row, task in enumerate(batch.tasks):
            one = slice(row, row + 1)
            weights = self._of_one[task]
            state = critic.embed_state(weights, features[one], batch.proprio[one])
            action = torch.cat([batch.action[one].unsqueeze(2), sampled[one]], dim=2)
            q_value, q_uniform, q_policy = critic.q_values(weights, state, action).split(
                [1, m, 2 * m], dim=3
            )
            q_value = q_value.squeeze(3)
            bellman = losses.bellman_loss(q_value, target[one]).sum()
            calql = losses.conservative_loss(
                q_value,
                q_uniform,
                q_policy,
                batch.mc_return[one],
                temperature=config.calql_temperature,
                floor_uniform=config.calql_floor_uniform,
            ).sum()
            loss = bellman + config.calql_weight * calql
            parts = torch.autograd.grad(loss, list(weights.values()))
            for whole, part in zip(gradients, parts, strict=True):
                whole[row * members : (row + 1) * members] = part
            for name, value in zip(measured, (bellman, calql, q_value.mean()), strict=True):
                measured[name].append(value.detach())
        return gradients, {name: torch.stack(values) for name, values in measured.items()}

    @torch.no_grad()
    def _calql_actions(self, batch: Batch) -> Float[Tensor, "n b m3 7"]:
        """Per state: uniform actions, the policy's, and the policy's at the next state."""
        n, b = batch.reward.shape
        m = self.config.calql_actions
        uniform = self._draws.uniform((n, b, m, 7))
        h = torch.stack([batch.h, batch.next_h])
        features = torch.stack([batch.features, batch.next_features])
        proprio = torch.stack([batch.proprio, batch.next_proprio])
        state = self._actors.embed_primary(h, features, proprio).unsqueeze(3)
        noise = self._draws.noise((2, n, b, m), rows=2)
        here, following = self._actors.primary.act(state, noise)
        return torch.cat([2.0 * uniform - 1.0, here, following], dim=2)


@final
class _Learnt:
    """What an update of one group of tasks touches: views of its critics and targets, and its own moments.

    Made once, they spare each update the work of taking views.
    """

    def __init__(self, ensembles: Ensembles, group: range) -> None:
        rows = slice(group.start, group.stop)
        critics, targets = ensembles.critics, ensembles.targets
        self.weights: Final = critics.weights(group)
        self.held: Final = _held(self.weights)
        self.target_weights: Final = targets.weights(group)
        self.targets: Final[list[Tensor]] = [p.detach()[rows] for p in targets.parameters()]
        self.optimiser: Final = FusedAdam(
            [p.detach()[rows] for p in critics.parameters()], ensembles.config.critic_learning_rate
        )


def _held(weights: CriticWeights) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in weights.items()}
