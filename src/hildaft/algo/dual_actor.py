"""The learner's networks and their three updates: critics, primary actor, refinement actor.

Each update takes gradients for the parameters it names and steps only these. Nothing here knows
robots, files or threads.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hildaft.algo import losses
from hildaft.algo.actors import Actors, check_tensors
from hildaft.algo.cloning_weights import cloned_rows, weigh_by_advantage, weighs_by_advantage
from hildaft.algo.config import HILDAFT, PAPER, DualActorConfig
from hildaft.algo.crew import Crew
from hildaft.algo.diagnostics import measure_listening
from hildaft.algo.draws import Draws
from hildaft.algo.ensembles import Ensembles
from hildaft.algo.optimiser import FusedAdam
from hildaft.data.replay import Batch, Dims, Phase, States, TalkTweakBatch
from hildaft.models.consistency import held, steer_noise
from hildaft.types import COMMAND_COUNT, NULL_COMMAND, ActionScale, RefinementCommand

__all__ = ["HILDAFT", "PAPER", "Dims", "DualActor", "DualActorConfig"]

Part: TypeAlias = Literal["critics", "primary", "refinement"]
_PARTS: Final[tuple[Part, ...]] = ("critics", "primary", "refinement")
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
        self._generator: Final = torch.Generator(self.device).manual_seed(seed)
        self._draws: Final = Draws(self._generator, self._crew)
        self.ensembles: Final = Ensembles(
            config, self.tasks, self.actors, dims, seed, self._draws, self._crew
        )
        primary, refinement = self.actors.primary, self.actors.refinement
        self._optimisers: Final[dict[Part, FusedAdam]] = {
            "primary": FusedAdam(list(primary.parameters()), config.primary_learning_rate),
            "refinement": FusedAdam(list(refinement.parameters()), config.refinement_learning_rate),
        }
        self._mean_q: Final = torch.full((len(self.tasks),), math.nan, device=self.device)
        """Every task's mean value of the primary actor's actions, when its turn last came."""
        self._held_primary: Final = held(self.actors.primary)
        self._follow_primary: Final = get_ema_multi_avg_fn(config.primary_average)
        self._updates: dict[Part, int] = dict.fromkeys(_PARTS, 0)
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

    @property
    def turns(self) -> Sequence[range]:
        """The groups of tasks that updates draw in turn."""
        return self.ensembles.turns

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
        measured = self.ensembles.update(batch, phase, next_action)
        names = self.ensembles.names
        tasks = names if len(names) == 1 else [names[task] for task in batch.tasks]
        return self._report(
            "critics",
            lambda: {
                f"critic/{task}/{name}": values[row]
                for name, values in measured.items()
                for row, task in enumerate(tasks)
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
        seen = self.actors.standardise(batch.h, batch.features)
        state = self.actors.embed_standard(*seen, batch.proprio)
        noise = self._draws.noise(batch.reward.shape)
        action = primary.act(state, noise)
        keep, read, q_value = cloned_rows(batch, config), self.ensembles.select(*seen), None
        weight = keep.float()
        if weighs_by_advantage(config, phase, self._updates["primary"]):
            q_value, advantage = self.ensembles.mean_q_and_advantage(action, batch, read)
            weight = weigh_by_advantage(advantage, keep, config, self._crew)
        elif q_weight:
            q_value = self.ensembles.mean_q(action, batch, read)
        bc_loss = self._primary_bc_loss(batch, state, action, noise, weight)
        loss = bc_weight * bc_loss
        measured = {"actor/bc_loss": bc_loss}
        if q_weight and q_value is not None:
            q_loss, task_weights = self._primary_q_loss(q_value, batch.tasks)
            loss = loss + q_weight * q_loss
            measured["actor/q_loss"] = q_loss
            if self._due("primary"):
                (dq_da,) = torch.autograd.grad(q_value.sum(), action, retain_graph=True)
                measured["actor/dq_da"] = dq_da.abs().mean()
                for row, task in enumerate(batch.tasks):
                    measured[f"actor/qbar/{self.tasks[task]}"] = q_value[row].mean()
                    measured[f"actor/eps/{self.tasks[task]}"] = task_weights[row]
        if len(self.turns) > 1:
            # A group with fewer tasks than others would weigh each of them more.
            loss = len(batch.tasks) * len(self.turns) / len(self.tasks) * loss
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
        noise = self._draws.noise(batch.command.shape)
        with torch.no_grad():
            h, features = self.actors.standardise(batch.h, batch.features)
            primary_state = self.actors.embed_standard(h, features, batch.proprio)
            primary_action = primary.act(primary_state, noise)
        random_command = self._draws.integers(COMMAND_COUNT, batch.command.shape)
        null = torch.full_like(batch.command, NULL_COMMAND.index)
        # One pass for the spoken command, "[null]" and the random command of the same states and
        # noise.
        commands = torch.stack([batch.command, null, random_command])
        mean = refinement.mean(refinement.embed_state(features, batch.proprio), commands)
        action, null_action, random_action = primary.act(primary_state, steer_noise(noise, mean))

        bc_loss = losses.refinement_bc_loss(action, batch.action)
        q_value = self.ensembles.mean_q(action, batch, self.ensembles.select(h, features))
        q_loss = losses.refinement_q_loss(q_value)
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
        }
        live = {
            f"{part}.{name}": tensor.detach()
            for part, module in modules.items()
            for name, tensor in module.state_dict().items()
        }
        live |= self.ensembles.state()
        if len(self.turns) > 1:
            live["mean_q"] = self._mean_q
        for part, optimiser in self._optimisers.items():
            live |= {f"optimisers.{part}.{name}": t for name, t in optimiser.state().items()}
        live["generator"] = self._generator.get_state()
        live["updates"] = torch.tensor(list(self._updates.values()))
        return live

    def _primary_bc_loss(
        self,
        batch: Batch,
        state: Float[Tensor, "n b hidden"],
        action: Float[Tensor, "n b 7"],
        noise: Float[Tensor, "n b 7"],
        weight: Float[Tensor, "n b"],
    ) -> Float[Tensor, ""]:
        config, primary = self.config, self.actors.primary
        target = batch.action.clone()
        target[..., :3] += config.tied_noise * noise[..., :3]
        if config.bc_form == "direct":
            return losses.bc_loss(action, target, weight)
        # ConRFT never draws the last level, at which the head is the identity.
        level = self._draws.integers(config.primary.scales - 1, weight.shape)
        sigma = primary.sigmas[level]
        denoised = primary.denoise(state, batch.action + sigma.unsqueeze(-1) * noise, sigma)
        return losses.karras_bc_loss(denoised, target, sigma, weight, config.primary.sigma_data)

    def _primary_q_loss(
        self, q_value: Float[Tensor, "n b"], tasks: range
    ) -> tuple[Tensor, Float[Tensor, " n"]]:
        """Eq. 15, or 14, and the weights of eq. 16, which compare a task with every other's last known value."""
        config = self.config
        mean_q = self._crew.mean(q_value.mean(dim=1))
        weights = losses.compute_task_weights(
            mean_q,
            constant=config.task_weight_constant,
            low=config.task_weight_min,
            high=config.task_weight_max,
            of_all=self._keep_mean_q(mean_q, tasks) if len(self.turns) > 1 else None,
        )
        if config.reweight_tasks:
            return losses.weighted_task_q_loss(q_value, weights), weights
        return losses.uniform_task_q_loss(q_value), weights

    @torch.no_grad()
    def _keep_mean_q(self, mean_q: Float[Tensor, " n"], tasks: range) -> Float[Tensor, " all"]:
        """Every task's last mean value, these among them; one whose turn has not come counts as the mean of these."""
        self._mean_q[tasks.start : tasks.stop] = mean_q
        return torch.where(self._mean_q.isnan(), mean_q.mean(), self._mean_q)

    def _joint_loss(self, batch: TalkTweakBatch) -> Float[Tensor, ""]:
        """X3: eq. 8 as a loss of the primary actor; the refinement actor's mean is held fixed."""
        noise = self._draws.noise(batch.command.shape)
        h, features = self.actors.standardise(batch.h, batch.features)
        with torch.no_grad():
            embedded = self.actors.refinement.embed_state(features, batch.proprio)
            noise = steer_noise(noise, self.actors.refinement.mean(embedded, batch.command))
        state = self.actors.embed_standard(h, features, batch.proprio)
        action = self.actors.primary.act(state, noise)
        return losses.refinement_bc_loss(action, batch.action)

    def _due(self, part: Part) -> bool:
        # One update of every group in turn.
        turns = len(self.turns)
        return self._updates[part] % (turns * self.config.metrics_every) < turns

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
