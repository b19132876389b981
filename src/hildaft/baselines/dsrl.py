"""DSRL (Wagenmaker et al., 2025): the warmed-up policy is frozen, and its start noise is learned by RL.

Three variants. `na` (noise aliasing): Q_A(s, a) learns from executed actions, Q_W(s, w) is distilled from it, the noise
actor climbs Q_W. `direct`: the policy is differentiable in its noise, so the noise actor climbs Q_A through it.
`sac`: SAC whose action is the noise; the noise of a stored action is found by inverting the frozen policy.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hildaft.algo import losses
from hildaft.algo.actors import check_tensors
from hildaft.algo.config import HILDAFT
from hildaft.algo.dual_actor import DualActor, Metrics
from hildaft.algo.optimiser import FusedAdam
from hildaft.baselines.noise_actor import NoiseActor, SteeredActors, invert_noise
from hildaft.data.replay import Batch, Dims, Phase, States, TalkTweakBatch
from hildaft.models import critic
from hildaft.models.consistency import sample_primary_noise
from hildaft.models.critic import Critics, CriticWeights
from hildaft.types import ACTION_DIM, ActionScale, HilDaftError

_OWN: Final = "dsrl."

METHOD: Final = replace(
    HILDAFT,
    refinement_actor=False,
    advantage_temperature=0.0,
    joint_weight=0.0,
    tasks_per_update=0,
)
"""The base's warm-up is ours. X1 stays on: without it the noise has next to no say (docs/baselines.md)."""


@dataclass(frozen=True, kw_only=True)
class DsrlConfig:
    """DSRL's choices; the numbers are of the authors' code where it has them."""

    variant: Literal["off", "na", "sac", "direct"] = "off"
    """How the noise actor learns; off: the run is not DSRL."""
    critic: Literal["offline", "online"] = "online"
    """Whether Q_A goes on learning online. Table I's DSRL has critics trained on offline data alone (Sec. V-B)."""
    noise_bound: float = 1.5
    """b: the noise, in units of K, stays within +-b on every axis."""
    hidden: int = 256
    """Width of the noise actor's two hidden layers."""
    learning_rate: float = 3e-4
    """Adam's step of noise actor, noise critics and temperature."""
    temperature: float = 0.01
    """The entropy bonus' weight at the start; it is learned. The authors' 1 fits rewards of -1 per step."""
    target_entropy: float = 0.0
    """Entropy the temperature steers to, of the noise in units of b."""

    def __post_init__(self) -> None:
        for name in ("noise_bound", "learning_rate", "hidden", "temperature"):
            if getattr(self, name) <= 0:
                msg = f"dsrl.{name}={getattr(self, name)}: must be > 0"
                raise HilDaftError(msg)
        if self.variant == "sac" and self.critic == "offline":
            msg = "dsrl.critic='offline': variant 'sac' has no critic before the policy is frozen; use 'online'"
            raise HilDaftError(msg)


@final
class Dsrl:
    """An `Agent`: `base` learns the policy and Q_A in the warm-up, then the noise actor takes its noise over."""

    def __init__(self, config: DsrlConfig, base: DualActor, dims: Dims, seed: int) -> None:
        if len(base.turns) > 1:
            msg = (
                f"method.tasks_per_update={base.config.tasks_per_update}: DSRL's noise critics learn all "
                f"{len(base.tasks)} tasks in every update; use 0"
            )
            raise HilDaftError(msg)
        self.config: Final = config
        self.base: Final = base
        self.device: Final = base.device
        critics_read = dims.features + (dims.h if base.config.critic_reads_h else 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            noise_actor = NoiseActor(config.hidden, config.noise_bound, dims)
            critics = Critics(base.config.critic, len(base.tasks), critics_read, dims.proprio)
        self.actors: Final = SteeredActors(base.actors, noise_actor).to(self.device)
        self.noise_critics: Final = critics.to(self.device)
        self.noise_targets: Final = copy.deepcopy(self.noise_critics).requires_grad_(False)
        self._log_alpha: Final = torch.nn.Linear(1, 1, bias=False, device=self.device)
        torch.nn.init.constant_(self._log_alpha.weight, math.log(config.temperature))
        self._optimisers: Final = {
            name: FusedAdam(list(module.parameters()), config.learning_rate)
            for name, module in (
                ("noise", noise_actor),
                ("critics", self.noise_critics),
                ("alpha", self._log_alpha),
            )
        }
        self._weights: Final = self.noise_critics.weights()
        self._held: Final = {n: w.detach() for n, w in self._weights.items()}
        self._target_weights: Final = self.noise_targets.weights()
        self._follow: Final = get_ema_multi_avg_fn(1.0 - base.config.target_rate)
        self._generator: Final = torch.Generator(self.device).manual_seed(seed)
        self._updates: Final = torch.zeros((), dtype=torch.int64)

    @property
    def listens(self) -> bool:
        """It has no use for words."""
        return False

    @property
    def online_rows(self) -> Phase:
        """Demonstrations and rollouts, half each."""
        return "online"

    @property
    def turns(self) -> Sequence[range]:
        """All tasks in every update."""
        return self.base.turns

    def fit_normalisation(self, h: Float[Tensor, "b d"], features: Float[Tensor, "b f"]) -> None:
        """As the base does."""
        self.base.fit_normalisation(h, features)

    def update_critics(self, batch: Batch, phase: Phase) -> Metrics:
        """Q_A, by Cal-QL in the warm-up; online by TD with the steered policy's next action, and Q_W."""
        if phase == "warmup":
            return self.base.update_critics(batch, phase)
        self._freeze_base()
        if self.config.variant == "sac":
            return self._report({"dsrl/bellman_loss": self._update_noise_critics_by_td(batch)})
        metrics = self._update_action_critics(batch) if self.config.critic == "online" else {}
        if self.config.variant == "na":
            metrics = {**metrics, **self._report({"dsrl/distillation_loss": self._distil(batch)})}
        return metrics

    def update_primary(
        self, batch: Batch, phase: Phase, talk_tweak: TalkTweakBatch | None = None
    ) -> Metrics:
        """The policy in the warm-up, as ours; online the noise actor and its temperature."""
        if phase == "warmup":
            return self.base.update_primary(batch, phase, talk_tweak)
        self._freeze_base()
        noise_actor = self.actors.noise
        seen = self.actors.standardise(batch.h, batch.features)
        unit, log_probability = noise_actor.sample(*seen, batch.proprio, self._generator)
        noise = unit * self.config.noise_bound
        if self.config.variant == "direct":
            action = self._frozen_policy(batch.h, batch.features, batch.proprio, noise)
            value = self.base.ensembles.members_q(action, batch).amin(dim=1)
        else:
            value = self._noise_values(self._held, batch, unit.unsqueeze(2)).squeeze(3).amin(dim=1)
        alpha = self._log_alpha.weight.detach().exp()
        loss = (alpha * log_probability - value).mean()
        optimiser = self._optimisers["noise"]
        optimiser.step(torch.autograd.grad(loss, optimiser.parameters))
        surplus = log_probability.detach().mean() + self.config.target_entropy
        self._optimisers["alpha"].step([(-surplus).view(1, 1)])
        metrics = self._report(
            {
                "dsrl/value": value.mean(),
                "dsrl/entropy": -log_probability.mean(),
                "dsrl/alpha": alpha.squeeze(),
                "dsrl/noise_rms": noise.square().mean().sqrt(),
            }
        )
        self._updates.add_(1)
        return metrics

    def update_refinement(self, batch: TalkTweakBatch) -> Metrics:
        """Never called: it does not listen."""
        del batch
        return {}

    def diagnostics(self, states: States, scale: ActionScale | None = None) -> dict[str, float]:
        """Spread of the frozen policy over N(0, I), and how far noise within the bound can move it (mm)."""
        scale = scale or ActionScale()
        measured = self.base.diagnostics(states, scale)
        primary = self.actors.primary
        with torch.no_grad():
            state = self.actors.embed_primary(states.h, states.features, states.proprio)
            ends = self.config.noise_bound * torch.eye(ACTION_DIM, device=self.device)[:3]
            ends = torch.stack([ends, -ends]).unsqueeze(2)
            high, low = primary.act(state, ends)
            reach = torch.stack([(high - low)[axis, :, axis] for axis in range(3)]).abs().mean()
        millimetres = 1000.0 * scale.translation_m
        return {**measured, "noise_reach_mm": millimetres * float(reach) / 2.0}

    def weights(self) -> dict[str, Tensor]:
        """The policy and the noise actor."""
        own = self.actors.noise.state_dict()
        return self.base.weights() | {f"noise.{n}": t.detach().clone() for n, t in own.items()}

    def state(self) -> dict[str, Tensor]:
        """A copy of everything training depends on, by name: continuing from it is bit-exact."""
        return self.base.state() | {n: t.clone() for n, t in self._live_state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state` returned.

        Raises:
            HilDaftError: a name is missing or unknown, or a shape differs.
        """
        live = self._live_state()
        own = {name: tensor for name, tensor in state.items() if name in live}
        check_tensors("state", live, own)
        self.base.load_state({n: t for n, t in state.items() if n not in live})
        for name, tensor in live.items():
            tensor.copy_(own[name])
        self._generator.set_state(own[f"{_OWN}generator"].cpu())

    def _live_state(self) -> dict[str, Tensor]:
        # The noise actor stands among the actors: that is what a worker is sent.
        modules = {
            "actors.noise": self.actors.noise,
            f"{_OWN}critics": self.noise_critics,
            f"{_OWN}targets": self.noise_targets,
            f"{_OWN}log_alpha": self._log_alpha,
        }
        live = {
            f"{part}.{name}": tensor.detach()
            for part, module in modules.items()
            for name, tensor in module.state_dict().items()
        }
        for part, optimiser in self._optimisers.items():
            live |= {f"{_OWN}optimisers.{part}.{n}": t for n, t in optimiser.state().items()}
        live[f"{_OWN}updates"] = self._updates
        live[f"{_OWN}generator"] = self._generator.get_state()
        return live

    def _freeze_base(self) -> None:
        """From the first online update the averaged policy is the policy, and noise actor and base act together."""
        if not bool(self.actors.noise.steers):
            self.base.settle()
            self.actors.noise.steers.fill_(True)

    def _frozen_policy(
        self,
        h: Float[Tensor, "n b d"],
        features: Float[Tensor, "n b f"],
        proprio: Float[Tensor, "n b p"],
        noise: Float[Tensor, "n b 7"],
    ) -> Float[Tensor, "n b 7"]:
        with torch.no_grad():
            state = self.actors.embed_primary(h, features, proprio)
        return self.actors.primary.act(state, noise)

    def _update_action_critics(self, batch: Batch) -> Metrics:
        with torch.no_grad():
            seen = self.actors.standardise(batch.next_h, batch.next_features)
            unit, _ = self.actors.noise.sample(*seen, batch.next_proprio, self._generator)
            noise = unit * self.config.noise_bound
            following = self._frozen_policy(
                batch.next_h, batch.next_features, batch.next_proprio, noise
            )
        return self.base.update_critics(batch, "online", following)

    @torch.no_grad()
    def _draw(self, batch: Batch) -> Float[Tensor, "n b 7"]:
        bound = self.config.noise_bound
        noise = sample_primary_noise(tuple(batch.reward.shape), self._generator)
        return noise.clamp(-bound, bound)

    def _distil(self, batch: Batch) -> Tensor:
        """Q_W regresses to Q_A of the action that noise from N(0, I), cut at the bound, leads to."""
        noise = self._draw(batch)
        with torch.no_grad():
            action = self._frozen_policy(batch.h, batch.features, batch.proprio, noise)
            target = self.base.ensembles.members_q(action, batch)
        unit = noise / self.config.noise_bound
        value = self._noise_values(self._weights, batch, unit.unsqueeze(2)).squeeze(3)
        loss = (value - target).square().mean(dim=(1, 2)).sum()
        return self._step_noise_critics(loss)

    def _update_noise_critics_by_td(self, batch: Batch) -> Tensor:
        bound = self.config.noise_bound
        with torch.no_grad():
            state = self.actors.embed_primary(batch.h, batch.features, batch.proprio)
            noise = invert_noise(self.actors.primary, state, batch.action, bound)
            seen = self.actors.standardise(batch.next_h, batch.next_features)
            unit, _ = self.actors.noise.sample(*seen, batch.next_proprio, self._generator)
            features = self.base.ensembles.features(batch.next_h, batch.next_features)
            weights = self._target_weights
            embedded = critic.embed_state(weights, features, batch.next_proprio)
            next_q = critic.q_values(weights, embedded, unit.unsqueeze(2)).squeeze(3)
            target = losses.bellman_target(
                batch.reward,
                batch.not_terminal,
                next_q,
                self.base.config.discount,
                self.base.config.max_return if self.base.config.target_clip else None,
            )
        value = self._noise_values(self._weights, batch, (noise / bound).unsqueeze(2)).squeeze(3)
        measured = self._step_noise_critics(losses.bellman_loss(value, target).sum())
        self._follow(
            list(self.noise_targets.parameters()), self._optimisers["critics"].parameters, 0
        )
        return measured

    def _noise_values(
        self, weights: CriticWeights, batch: Batch, unit: Float[Tensor, "n b m 7"]
    ) -> Float[Tensor, "n e b m"]:
        features = self.base.ensembles.features(batch.h, batch.features)
        return critic.q_values(weights, critic.embed_state(weights, features, batch.proprio), unit)

    def _step_noise_critics(self, loss: Tensor) -> Tensor:
        gradients = torch.autograd.grad(loss, list(self._weights.values()))
        self._optimisers["critics"].step(gradients)
        return loss / len(self.base.tasks)

    def _report(self, measured: Mapping[str, Tensor]) -> Metrics:
        """As floats, every `metrics_every`-th update of the noise actor."""
        if int(self._updates) % self.base.config.metrics_every:
            return {}
        return {name: float(value.detach()) for name, value in measured.items()}
