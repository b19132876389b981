"""The learner's networks and their three updates: critics, primary actor, refinement actor.

Each update takes gradients for the parameters it names and steps only these. Nothing here knows
robots, files or threads.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hildaft.algo import losses
from hildaft.algo.actors import Actors, check_tensors
from hildaft.algo.config import HILDAFT, PAPER, DualActorConfig
from hildaft.algo.crew import Crew
from hildaft.algo.diagnostics import measure_listening
from hildaft.algo.optimiser import FusedAdam
from hildaft.data.replay import Batch, Dims, Phase, States, TalkTweakBatch
from hildaft.models import critic
from hildaft.models.consistency import held, sample_primary_noise, steer_noise
from hildaft.models.critic import Critics, CriticWeights
from hildaft.types import COMMAND_COUNT, NULL_COMMAND, ActionScale, RefinementCommand

__all__ = ["HILDAFT", "PAPER", "Dims", "DualActor", "DualActorConfig"]

Part: TypeAlias = Literal["critics", "primary", "refinement"]
Metrics: TypeAlias = dict[str, float]


@final
class DualActor:
    """One shared pair of actors and an ensemble of critics per task, with their optimisers.

    Every `metrics_every`-th update of a part returns its metrics; the others return an empty
    mapping, since reading a value back waits for the device.

    Paper: Alg. 1, line 1.
    """

    def __init__(
        self,
        config: DualActorConfig,
        tasks: Sequence[str],
        dims: Dims,
        command_table: Float[Tensor, "27 c"],
        seed: int,
        device: torch.device | None = None,
        crew: Crew | None = None,
    ) -> None:
        self.config: Final = config
        self._crew: Final = crew or Crew()
        self.tasks: Final = tuple(tasks)
        self.device: Final = device or torch.device("cpu")
        self.actors: Final = Actors(
            config.primary, config.refinement, dims, command_table, seed
        ).to(self.device)
        # What acts: an average over the primary actor's last updates, with the refinement actor as it is.
        self._acting: Final = copy.deepcopy(self.actors).requires_grad_(False)
        critic_features = dims.features + (dims.h if config.critic_reads_h else 0)
        self._critic_names: Final = ("all",) if config.shared_critic else self.tasks
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            critics = Critics(config.critic, len(self._critic_names), critic_features, dims.proprio)
        self.critics: Final = critics.to(self.device)
        self.targets: Final = copy.deepcopy(self.critics).requires_grad_(False)
        self._optimisers: Final[dict[Part, FusedAdam]] = {
            "critics": FusedAdam(self.critics, config.critic_learning_rate),
            "primary": FusedAdam(self.actors.primary, config.primary_learning_rate),
            "refinement": FusedAdam(self.actors.refinement, config.refinement_learning_rate),
        }
        self._weights: Final = self.critics.weights()
        self._task_weights: Final = [
            self.critics.weights(task=i) for i in range(len(self._critic_names))
        ]
        self._held_weights: Final = {n: w.detach() for n, w in self._weights.items()}
        self._target_weights: Final = self.targets.weights()
        self._held_primary: Final = held(self.actors.primary)
        self._follow_critics: Final = get_ema_multi_avg_fn(1.0 - config.target_rate)
        self._follow_primary: Final = get_ema_multi_avg_fn(config.primary_average)
        self._updates: dict[Part, int] = dict.fromkeys(self._optimisers, 0)
        self._generator: Final = torch.Generator(self.device).manual_seed(seed)
        commands = [RefinementCommand.from_index(index) for index in range(COMMAND_COUNT)]
        self._directions: Final = torch.tensor(
            [command.signs for command in commands], dtype=torch.float32, device=self.device
        )

    @property
    def listens(self) -> bool:
        """Whether there is a refinement actor to train and to talk to."""
        return self.config.refinement_actor

    @property
    def online_rows(self) -> Phase:
        """What the online updates draw: "warmup" stands for demonstrations and interventions alone."""
        supervised = not self.config.has_critics and self.config.bc_data == "demos"
        return "warmup" if supervised else "online"

    def fit_normalisation(self, h: Float[Tensor, "b d"], features: Float[Tensor, "b f"]) -> None:
        """Fits the standardisation of h and image features, before the first update."""
        self.actors.normalisation.fit(h.to(self.device), features.to(self.device))

    def update_critics(
        self, batch: Batch, phase: Phase, next_action: Float[Tensor, "n b 7"] | None = None
    ) -> Metrics:
        """One step of every task's critics, then of the targets.

        The loss is the Bellman loss, and in the warm-up Cal-QL's term too. `next_action` takes the place of the
        primary actor's in the Bellman target.

        Paper: Alg. 1, lines 5, 13.
        """
        if not self.config.has_critics:
            return {}
        if self.config.shared_critic:
            batch = batch.pooled()
        features = self.critic_features(batch.h, batch.features)
        target = self._bellman_target(batch, next_action)
        if phase == "online":
            weights = self._weights
            state = critic.embed_state(weights, features, batch.proprio)
            q_value = critic.q_values(weights, state, batch.action.unsqueeze(2)).squeeze(3)
            bellman = losses.bellman_loss(q_value, target)
            gradients = torch.autograd.grad(bellman.sum(), list(weights.values()))
            measured = {"bellman_loss": bellman, "q_mean": q_value.detach().mean(dim=(1, 2))}
        else:
            gradients, measured = self._warmup_gradients(batch, features, target)
        optimiser = self._optimisers["critics"]
        optimiser.step(self._crew.average(gradients))
        self._follow_critics(list(self.targets.parameters()), optimiser.parameters, 0)
        return self._report(
            "critics",
            lambda: {
                f"critic/{task}/{name}": values[row]
                for name, values in measured.items()
                for row, task in enumerate(self._critic_names)
            },
        )

    def update_primary(
        self, batch: Batch, phase: Phase, talk_tweak: TalkTweakBatch | None = None
    ) -> Metrics:
        """One step of the primary actor; the critics are held fixed.

        `talk_tweak` is needed for `joint_weight` (X3) only.

        Paper: Eq. 6.
        Paper: Alg. 1, lines 7, 15.
        """
        config, primary = self.config, self.actors.primary
        bc_weight, q_weight = (
            (config.warmup_bc_weight, config.warmup_q_weight)
            if phase == "warmup"
            else (config.online_bc_weight, config.online_q_weight)
        )
        state = self.actors.embed_primary(batch.h, batch.features, batch.proprio)
        noise = self._noise(batch.reward.shape)
        action = primary.act(state, noise)
        bc_loss = self._primary_bc_loss(batch, state, action, noise)
        loss = bc_weight * bc_loss
        measured = {"actor/bc_loss": bc_loss}
        if q_weight:
            q_value = self._q_of(action, batch, self._held_weights)
            q_loss, task_weights = self._primary_q_loss(q_value)
            loss = loss + q_weight * q_loss
            measured["actor/q_loss"] = q_loss
            if self._due("primary"):
                (dq_da,) = torch.autograd.grad(q_value.sum(), action, retain_graph=True)
                measured["actor/dq_da"] = dq_da.abs().mean()
                for row, task in enumerate(self.tasks):
                    measured[f"actor/qbar/{task}"] = q_value[row].mean()
                    measured[f"actor/eps/{task}"] = task_weights[row]
        if config.joint_weight and talk_tweak is not None:
            loss = loss + config.joint_weight * self._joint_loss(talk_tweak)
        if self._due("primary"):
            dbc_da = 2.0 * (action - batch.action)[batch.from_demos]
            measured["actor/dbc_da"] = dbc_da.abs().mean()
        optimiser = self._optimisers["primary"]
        gradients = torch.autograd.grad(loss, optimiser.parameters)
        optimiser.step(self._crew.average(gradients))
        self._follow_primary(list(self._acting.primary.parameters()), optimiser.parameters, 0)
        return self._report("primary", lambda: measured)

    def update_refinement(self, batch: TalkTweakBatch) -> Metrics:
        """One step of the refinement actor; primary actor and critics are held fixed.

        Paper: Eq. 11.
        Paper: Alg. 1, line 16.
        """
        config, primary, refinement = self.config, self._held_primary, self.actors.refinement
        noise = self._noise(batch.command.shape)
        with torch.no_grad():
            primary_state = self.actors.embed_primary(batch.h, batch.features, batch.proprio)
            primary_action = primary.act(primary_state, noise)
            features = self.actors.normalisation.standardise_features(batch.features)
        random_command = self._integers(COMMAND_COUNT, batch.command.shape)
        null = torch.full_like(batch.command, NULL_COMMAND.index)
        # One pass for the spoken command, "[null]" and the random command of the same states and
        # noise.
        commands = torch.stack([batch.command, null, random_command])
        mean = refinement.mean(refinement.embed_state(features, batch.proprio), commands)
        action, null_action, random_action = primary.act(primary_state, steer_noise(noise, mean))

        bc_loss = losses.refinement_bc_loss(action, batch.action)
        q_loss = losses.refinement_q_loss(self._q_of(action, batch, self._weights_of(batch.task)))
        reg_loss = losses.refinement_reg_loss(null_action, primary_action)
        counterfactual_loss = losses.counterfactual_loss(
            random_action,
            primary_action,
            self._directions[random_command],
            config.counterfactual_step,
        )
        loss = (
            config.refinement_bc_weight * bc_loss
            + config.refinement_q_weight * q_loss
            + config.refinement_reg_weight * reg_loss
            + config.counterfactual_weight * counterfactual_loss
        )
        optimiser = self._optimisers["refinement"]
        gradients = torch.autograd.grad(loss, optimiser.parameters)
        optimiser.step(self._crew.average(gradients))
        return self._report(
            "refinement",
            lambda: {
                "refinement/bc_loss": bc_loss,
                "refinement/q_loss": q_loss,
                "refinement/reg_loss": reg_loss,
                "refinement/counterfactual_loss": counterfactual_loss,
                "refinement/mean_rms": mean[0].square().mean().sqrt(),
            },
        )

    def diagnostics(self, states: States, scale: ActionScale | None = None) -> dict[str, float]:
        """Obedience, size, null drift and spread on held-out states (see `measure_listening`)."""
        measured = measure_listening(
            self._synchronised(),
            states,
            scale or ActionScale(),
            bypass_null=self.config.null_bypass,
        )
        return measured if self.listens else {"spread_mm": measured["spread_mm"]}

    def weights(self) -> dict[str, Tensor]:
        """What a worker needs: both actors, the primary one averaged over its updates, and the normalisation."""
        return self._synchronised().weights()

    def _synchronised(self) -> Actors:
        acting = self._acting
        acting.refinement.load_state_dict(self.actors.refinement.state_dict())
        acting.normalisation.load_state_dict(self.actors.normalisation.state_dict())
        return acting

    def settle(self) -> None:
        """Makes the average over its updates the primary actor itself."""
        self.actors.primary.load_state_dict(self._acting.primary.state_dict())

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over what `weights` returned; critics and optimisers stay."""
        self.actors.load_weights(weights)
        self._acting.load_weights(weights)

    def state(self) -> dict[str, Tensor]:
        """A copy of everything training depends on, by name: continuing from it is bit-exact."""
        return {name: tensor.clone() for name, tensor in self._live_state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state` returned.

        Raises:
            HilDaftError: a name is missing or unknown, or a shape differs; nothing is changed then.
        """
        live = self._live_state()
        check_tensors("state", live, state)
        for name, tensor in live.items():
            tensor.copy_(state[name])
        self._generator.set_state(state["generator"].cpu())
        for part, count in zip(self._updates, state["updates"].tolist(), strict=True):
            self._updates[part] = int(count)

    def _live_state(self) -> dict[str, Tensor]:
        modules: dict[str, nn.Module] = {
            "actors": self.actors,
            "acting": self._acting.primary,
            "critics": self.critics,
            "targets": self.targets,
        }
        live = {
            f"{part}.{name}": tensor.detach()
            for part, module in modules.items()
            for name, tensor in module.state_dict().items()
        }
        for part, optimiser in self._optimisers.items():
            live |= {f"optimisers.{part}.{name}": t for name, t in optimiser.state().items()}
        live["generator"] = self._generator.get_state()
        live["updates"] = torch.tensor(list(self._updates.values()))
        return live

    def _bellman_target(
        self, batch: Batch, next_action: Float[Tensor, "n b 7"] | None = None
    ) -> Float[Tensor, "n b"]:
        with torch.no_grad():
            if next_action is None:
                noise = self._noise(batch.reward.shape)
                next_action = self.actors.primary_action(
                    batch.next_h, batch.next_features, batch.next_proprio, noise
                )
            weights = self._target_weights
            features = self.critic_features(batch.next_h, batch.next_features)
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
        gradients = [torch.empty_like(weight) for weight in self._held_weights.values()]
        measured: dict[str, list[Tensor]] = {"bellman_loss": [], "calql_loss": [], "q_mean": []}
        for task in range(len(self._critic_names)):
            one = slice(task, task + 1)
            weights = self._task_weights[task]
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
                whole[task * members : (task + 1) * members] = part
            for name, value in zip(measured, (bellman, calql, q_value.mean()), strict=True):
                measured[name].append(value.detach())
        return gradients, {name: torch.stack(values) for name, values in measured.items()}

    @torch.no_grad()
    def _calql_actions(self, batch: Batch) -> Float[Tensor, "n b m3 7"]:
        """Per state: uniform actions, the policy's, and the policy's at the next state."""
        n, b = batch.reward.shape
        m = self.config.calql_actions
        uniform = self._crew.draw(
            lambda shape: torch.rand(*shape, generator=self._generator, device=self.device),
            (n, b, m, 7),
        )
        h = torch.stack([batch.h, batch.next_h])
        features = torch.stack([batch.features, batch.next_features])
        proprio = torch.stack([batch.proprio, batch.next_proprio])
        state = self.actors.embed_primary(h, features, proprio).unsqueeze(3)
        noise = self._noise((2, n, b, m), rows=2)
        here, following = self.actors.primary.act(state, noise)
        return torch.cat([2.0 * uniform - 1.0, here, following], dim=2)

    def _primary_bc_loss(
        self,
        batch: Batch,
        state: Float[Tensor, "n b hidden"],
        action: Float[Tensor, "n b 7"],
        noise: Float[Tensor, "n b 7"],
    ) -> Float[Tensor, ""]:
        config, primary = self.config, self.actors.primary
        keep = batch.from_demos
        if config.bc_data == "all":
            keep = torch.ones_like(keep)
        elif config.bc_data == "successes":
            # Only an episode that ended in success has a return.
            keep = keep | (batch.mc_return > 0)
        target = batch.action.clone()
        target[..., :3] += config.tied_noise * noise[..., :3]
        if config.bc_form == "direct":
            return losses.bc_loss(action, target, keep)
        # ConRFT never draws the last level, at which the head is the identity.
        level = self._integers(config.primary.scales - 1, keep.shape)
        sigma = primary.sigmas[level]
        denoised = primary.denoise(state, batch.action + sigma.unsqueeze(-1) * noise, sigma)
        return losses.karras_bc_loss(denoised, target, sigma, keep, config.primary.sigma_data)

    def _primary_q_loss(self, q_value: Float[Tensor, "n b"]) -> tuple[Tensor, Float[Tensor, " n"]]:
        """Eq. 15, or 14, and the weights of eq. 16."""
        config = self.config
        weights = losses.compute_task_weights(
            self._crew.mean(q_value.mean(dim=1)),
            constant=config.task_weight_constant,
            low=config.task_weight_min,
            high=config.task_weight_max,
        )
        if config.reweight_tasks:
            return losses.weighted_task_q_loss(q_value, weights), weights
        return losses.uniform_task_q_loss(q_value), weights

    def _joint_loss(self, batch: TalkTweakBatch) -> Float[Tensor, ""]:
        """X3: eq. 8 as a loss of the primary actor; the refinement actor's mean is held fixed."""
        noise = self._noise(batch.command.shape)
        with torch.no_grad():
            features = self.actors.normalisation.standardise_features(batch.features)
            embedded = self.actors.refinement.embed_state(features, batch.proprio)
            noise = steer_noise(noise, self.actors.refinement.mean(embedded, batch.command))
        action = self.actors.primary_action(batch.h, batch.features, batch.proprio, noise)
        return losses.refinement_bc_loss(action, batch.action)

    def critic_features(
        self, h: Float[Tensor, "n b d"], features: Float[Tensor, "n b f"]
    ) -> Float[Tensor, "n b g"]:
        """What the critics read, standardised."""
        features = self.actors.normalisation.standardise_features(features)
        if not self.config.critic_reads_h:
            return features
        return torch.cat([features, self.actors.normalisation.standardise_h(h)], dim=-1)

    def _weights_of(self, task: Tensor) -> CriticWeights:
        """The critics' weights without gradient, of the given tasks."""
        if self.config.shared_critic or len(task) == len(self.tasks):
            return self._held_weights
        return {
            name: tensor.unflatten(0, (len(self.tasks), -1))[task].flatten(0, 1)
            for name, tensor in self._held_weights.items()
        }

    def _q_of(
        self,
        action: Float[Tensor, "n b 7"],
        batch: Batch | TalkTweakBatch,
        weights: CriticWeights,
    ) -> Float[Tensor, "n b"]:
        """Mean over the ensemble of the value of each row's action."""
        return self.q_of_members(action, batch, weights).mean(dim=1)

    def q_of_members(
        self,
        action: Float[Tensor, "n b 7"],
        batch: Batch | TalkTweakBatch,
        weights: CriticWeights | None = None,
    ) -> Float[Tensor, "n e b"]:
        """Every member's value of each row's action; the critics are held fixed."""
        features, proprio = self.critic_features(batch.h, batch.features), batch.proprio
        rows = action.shape[:2]
        if self.config.shared_critic:
            features, proprio, action = (
                values.flatten(0, 1).unsqueeze(0) for values in (features, proprio, action)
            )
        weights = self._held_weights if weights is None else weights
        state = critic.embed_state(weights, features, proprio)
        q_value = critic.q_values(weights, state, action.unsqueeze(2)).squeeze(3)
        if self.config.shared_critic:
            return q_value.squeeze(0).unflatten(1, rows).transpose(0, 1)
        return q_value

    def _noise(self, shape: Sequence[int], rows: int = 1) -> Tensor:
        return self._crew.draw(lambda s: sample_primary_noise(s, self._generator), shape, rows)

    def _integers(self, below: int, shape: Sequence[int]) -> Tensor:
        return self._crew.draw(
            lambda s: torch.randint(below, s, generator=self._generator, device=self.device), shape
        )

    def _due(self, part: Part) -> bool:
        return self._updates[part] % self.config.metrics_every == 0

    def _report(self, part: Part, measure: Callable[[], Mapping[str, Tensor]]) -> Metrics:
        """Counts the update; the values as floats if it is one of those that report."""
        due = self._due(part)
        self._updates[part] += 1
        if not due:
            return {}
        measured = measure()
        values = torch.stack([value.detach() for value in measured.values()]).tolist()
        return dict(zip(measured, values, strict=True))


def acting_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `weights` returned when `state` was taken."""
    actors = {n.removeprefix("actors."): t for n, t in state.items() if n.startswith("actors.")}
    average = {n.removeprefix("acting."): t for n, t in state.items() if n.startswith("acting.")}
    return actors | {f"primary.{name}": tensor for name, tensor in average.items()}
