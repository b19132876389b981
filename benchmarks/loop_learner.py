"""The same updates, written the plain way: the oracle of the batched ones and the other side of the benchmark.

One module per member, a loop over members, tasks and sampled actions, torch's default Adam, and critic gradients that
the actors' losses compute and nobody uses. Random numbers are drawn as the batched learner draws them, so that both
make the same update.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hildaft.algo import losses
from hildaft.algo.cloning_weights import WEIGHT_LIMIT
from hildaft.algo.dual_actor import DualActor
from hildaft.data.replay import Batch, TalkTweakBatch
from hildaft.models.consistency import sample_primary_noise
from hildaft.types import ACTION_DIM, COMMAND_COUNT, NULL_COMMAND, RefinementCommand
from reference_critic import ReferenceCritic, reference_of


@dataclass(frozen=True)
class LoopLearner:
    """Critics of its own and the twin's actors; the twin itself must not be updated."""

    twin: DualActor
    critics: Sequence[Sequence[ReferenceCritic]]
    targets: Sequence[Sequence[ReferenceCritic]]
    critic_adam: Sequence[torch.optim.Adam]
    primary_adam: torch.optim.Adam
    refinement_adam: torch.optim.Adam
    average: nn.Module

    @staticmethod
    def like(twin: DualActor) -> "LoopLearner":
        """A loop learner with the twin's critics, sharing its actors."""
        config = twin.config
        critics = [
            [
                reference_of(twin.ensembles.critics, config.critic, task, member)
                for member in range(config.critic.members)
            ]
            for task in range(len(twin.tasks))
        ]
        return LoopLearner(
            twin=twin,
            critics=critics,
            targets=copy.deepcopy(critics),
            critic_adam=[
                torch.optim.Adam(
                    [p for member in task for p in member.parameters()],
                    lr=config.critic_learning_rate,
                )
                for task in critics
            ],
            primary_adam=torch.optim.Adam(
                twin.actors.primary.parameters(), lr=config.primary_learning_rate
            ),
            refinement_adam=torch.optim.Adam(
                twin.actors.refinement.parameters(), lr=config.refinement_learning_rate
            ),
            average=copy.deepcopy(twin.actors.primary),
        )

    def update_critics(self, batch: Batch, *, warmup: bool) -> None:
        """Bellman, and in the warm-up Cal-QL, task by task."""
        config, twin = self.twin.config, self.twin
        generator, m = twin._generator, config.calql_actions
        n, b = batch.reward.shape
        next_noise = sample_primary_noise((n, b), generator)
        if warmup:
            uniform = 2.0 * torch.rand(n, b, m, ACTION_DIM, generator=generator) - 1.0
            noise = sample_primary_noise((2, n, b, m), generator)
        for task, members in enumerate(self.critics):
            features = twin.actors.normalisation.standardise_features(batch.features[task])
            proprio = batch.proprio[task]
            target = self._target(batch, task, next_noise[task])
            loss = torch.zeros(())
            sampled: list[Tensor] = []
            if warmup:
                sampled = [uniform[task, :, i] for i in range(m)]
                with torch.no_grad():
                    sampled += [self._act(batch, task, noise[0, task, :, i]) for i in range(m)]
                    sampled += [
                        self._act(batch, task, noise[1, task, :, i], following=True)
                        for i in range(m)
                    ]
            for member in members:
                q_value = member(features, proprio, batch.action[task])
                loss = loss + (q_value - target).square().mean() / len(members)
                if not warmup:
                    continue
                values = [member(features, proprio, action) for action in sampled]
                penalty = losses.conservative_loss(
                    q_value[None, None],
                    torch.stack(values[:m], dim=-1)[None, None],
                    torch.stack(values[m:], dim=-1)[None, None],
                    batch.mc_return[task][None],
                    temperature=config.calql_temperature,
                    floor_uniform=config.calql_floor_uniform,
                )
                loss = loss + config.calql_weight * penalty.sum() / len(members)
            self.critic_adam[task].zero_grad()
            loss.backward()
            self.critic_adam[task].step()
            for slow, fast in zip(self.targets[task], members, strict=True):
                _follow(slow, fast, config.target_rate)

    def update_primary(self, batch: Batch, talk: TalkTweakBatch | None, *, warmup: bool) -> None:
        """Eq. 6 and X3, with a pass per task and member for the values."""
        config, actors = self.twin.config, self.twin.actors
        noise = sample_primary_noise(tuple(batch.reward.shape), self.twin._generator)
        action = self._primary(batch, noise)
        target = batch.action.clone()
        target[..., :3] += config.tied_noise * noise[..., :3]
        q_value = self._q_of(action, batch)
        task_weights = losses.compute_task_weights(
            q_value.mean(dim=1),
            constant=config.task_weight_constant,
            low=config.task_weight_min,
            high=config.task_weight_max,
        )
        bc_weight = config.warmup_bc_weight if warmup else config.online_bc_weight
        q_weight = config.warmup_q_weight if warmup else config.online_q_weight
        kept = batch.from_demos
        weight = kept.float()
        if not warmup and config.advantage_temperature:
            advantage = (self._q_of(batch.action, batch) - q_value).detach()
            centred = [a[k] - a[k].mean() for a, k in zip(advantage, kept, strict=True)]
            scale = config.advantage_temperature * torch.cat(centred).std(correction=0).view(1, 1)
            weight = losses.advantage_weights(advantage, kept, scale, WEIGHT_LIMIT)
            weight = torch.stack([w / w[k].mean() for w, k in zip(weight, kept, strict=True)])
        loss = bc_weight * losses.bc_loss(action, target, weight)
        loss = loss + q_weight * losses.weighted_task_q_loss(q_value, task_weights)
        if talk is not None and config.joint_weight:
            steered = self._refined(
                talk,
                talk.command,
                sample_primary_noise(tuple(talk.command.shape), self.twin._generator),
            )
            loss = loss + config.joint_weight * losses.refinement_bc_loss(steered, talk.action)
        self.primary_adam.zero_grad()
        loss.backward()
        self.primary_adam.step()
        _follow(self.average, actors.primary, 1.0 - config.primary_average)

    def update_refinement(self, batch: TalkTweakBatch) -> None:
        """Eq. 11 and X2, one pass per term."""
        config, generator = self.twin.config, self.twin._generator
        noise = sample_primary_noise(tuple(batch.command.shape), generator)
        with torch.no_grad():
            primary_action = self._primary(batch, noise)
        random_command = torch.randint(COMMAND_COUNT, batch.command.shape, generator=generator)
        null = torch.full_like(batch.command, NULL_COMMAND.index)
        action, null_action, random_action = (
            self._refined(batch, command, noise)
            for command in (batch.command, null, random_command)
        )
        signs = [RefinementCommand.from_index(i).signs for i in range(COMMAND_COUNT)]
        direction = torch.tensor(signs, dtype=torch.float32)[random_command]
        loss = (
            config.refinement_bc_weight * losses.refinement_bc_loss(action, batch.action)
            + config.refinement_q_weight * losses.refinement_q_loss(self._q_of(action, batch))
            + config.refinement_reg_weight * losses.refinement_reg_loss(null_action, primary_action)
            + config.counterfactual_weight
            * losses.counterfactual_loss(
                random_action, primary_action, direction, config.counterfactual_step
            )
        )
        self.refinement_adam.zero_grad()
        loss.backward()
        self.refinement_adam.step()

    def _target(self, batch: Batch, task: int, noise: Tensor) -> Tensor:
        config, actors = self.twin.config, self.twin.actors
        with torch.no_grad():
            following = self._act(batch, task, noise, following=True)
            features = actors.normalisation.standardise_features(batch.next_features[task])
            values = [t(features, batch.next_proprio[task], following) for t in self.targets[task]]
            least = torch.stack(values).amin(dim=0)
            target = batch.reward[task] + config.discount * batch.not_terminal[task] * least
            return target.clamp(0.0, config.max_return)

    def _act(self, batch: Batch, task: int, noise: Tensor, *, following: bool = False) -> Tensor:
        state = (
            (batch.next_h, batch.next_features, batch.next_proprio)
            if following
            else (batch.h, batch.features, batch.proprio)
        )
        return self.twin.actors.primary_action(*(part[task] for part in state), noise)

    def _primary(self, batch: Batch | TalkTweakBatch, noise: Tensor) -> Tensor:
        return torch.stack(
            [
                self.twin.actors.primary_action(*state, noise[task])
                for task, state in enumerate(
                    zip(batch.h, batch.features, batch.proprio, strict=True)
                )
            ]
        )

    def _refined(self, batch: TalkTweakBatch, command: Tensor, noise: Tensor) -> Tensor:
        return torch.stack(
            [
                self.twin.actors.refined_action(*state, command[task], noise[task])
                for task, state in enumerate(
                    zip(batch.h, batch.features, batch.proprio, strict=True)
                )
            ]
        )

    def _q_of(self, action: Tensor, batch: Batch | TalkTweakBatch) -> Tensor:
        features = self.twin.actors.normalisation.standardise_features(batch.features)
        return torch.stack(
            [
                torch.stack([m(features[i], batch.proprio[i], action[i]) for m in members]).mean(0)
                for i, members in enumerate(self.critics)
            ]
        )


@torch.no_grad()
def _follow(slow: nn.Module, fast: nn.Module, rate: float) -> None:
    for target, parameter in zip(slow.parameters(), fast.parameters(), strict=True):
        target.lerp_(parameter, rate)
