"""The critics: every task's ensemble in one batched pass, no two members sharing a weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hildaft.models.products import grouped_linear
from hildaft.types import ACTION_DIM, HilDaftError

CriticWeights: TypeAlias = Mapping[str, Tensor]
"""By name; the first axis is (task, member), task major."""


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """Shape of one critic, and how many make an ensemble."""

    members: int = 2
    """Independent critics per task. Not in the paper; 2 as in ConRFT."""

    feature_projection: int = 128
    """Width the image features are projected to. Not in the paper."""

    proprio_projection: int = 32
    """Width the proprioception is projected to. Not in the paper."""

    action_projection: int = 64
    """Width the action is projected to. Not in the paper."""

    hidden: int = 256
    """Width of the two hidden layers of the head. From ConRFT."""

    def __post_init__(self) -> None:
        for name in (
            "members",
            "feature_projection",
            "proprio_projection",
            "action_projection",
            "hidden",
        ):
            if getattr(self, name) < 1:
                msg = f"critic.{name}={getattr(self, name)}: must be >= 1"
                raise HilDaftError(msg)


@final
class Critics(nn.Module):
    """Q(s, a) for n tasks with e members each (Sec. IV-C).

    Image features, proprioception and action are each projected (linear, LayerNorm, tanh),
    concatenated, and go through a two-layer head (linear, LayerNorm, SiLU). The head's first layer
    is split into a state part and an action part (exact), so that many actions of one state share
    the former. LayerNorm has no gain or bias of its own. Weights are stacked over (task, member);
    every pass is a batched matmul.
    """

    def __init__(self, config: CriticConfig, tasks: int, features: int, proprio: int) -> None:
        super().__init__()
        state = config.feature_projection + config.proprio_projection
        self._linear("features_in", (tasks, config.members), features, config.feature_projection)
        self._linear("proprio_in", (tasks, config.members), proprio, config.proprio_projection)
        self._linear("action_in", (tasks, config.members), ACTION_DIM, config.action_projection)
        # Both halves of one layer over the concatenation are initialised for its whole fan-in.
        fan_in = state + config.action_projection
        self._linear("state_to_hidden", (tasks, config.members), state, config.hidden, fan_in)
        self._linear(
            "action_to_hidden",
            (tasks, config.members),
            config.action_projection,
            config.hidden,
            fan_in,
            bias=False,
        )
        self._linear("hidden", (tasks, config.members), config.hidden, config.hidden)
        self._linear("out", (tasks, config.members), config.hidden, 1)

    def _linear(
        self,
        name: str,
        groups: tuple[int, int],
        inputs: int,
        outputs: int,
        fan_in: int | None = None,
        *,
        bias: bool = True,
    ) -> None:
        bound = (fan_in or inputs) ** -0.5
        weight = torch.empty(*groups, inputs, outputs).uniform_(-bound, bound)
        self.register_parameter(f"{name}_weight", nn.Parameter(weight))
        if bias:
            offset = torch.empty(*groups, 1, outputs).uniform_(-bound, bound)
            self.register_parameter(f"{name}_bias", nn.Parameter(offset))

    def weights(self, tasks: range | None = None) -> dict[str, Tensor]:
        """New leaves that share memory with the parameters of all tasks, or of some that follow one another.

        They follow every later step; made once, they spare each update the work of taking views.
        """
        rows = slice(None) if tasks is None else slice(tasks.start, tasks.stop)
        return {
            name: parameter.detach()[rows].flatten(0, 1).requires_grad_(parameter.requires_grad)
            for name, parameter in self.named_parameters()
        }


def embed_state(
    weights: CriticWeights, features: Float[Tensor, "n b f"], proprio: Float[Tensor, "n b p"]
) -> Float[Tensor, "g b hidden"]:
    """The state's share of the head's first layer, from standardised features; g = n x members."""
    groups = len(weights["out_weight"])
    projected = [
        _linear(weights, "features_in", _per_member(features, groups)),
        _linear(weights, "proprio_in", _per_member(proprio, groups)),
    ]
    squashed = torch.cat([_squash(values) for values in projected], dim=-1)
    return _linear(weights, "state_to_hidden", squashed)


def q_values(
    weights: CriticWeights, state: Float[Tensor, "g b hidden"], action: Float[Tensor, "n b m 7"]
) -> Float[Tensor, "n e b m"]:
    """Values of m actions per state; actions are clipped to [-1, 1], as the robot clips them."""
    n, b, m, _ = action.shape
    groups = len(state)
    action = _per_member(action.clamp(-1.0, 1.0).flatten(1, 2), groups)
    projected = _squash(_linear(weights, "action_in", action))
    pushed = grouped_linear(projected, weights["action_to_hidden_weight"])
    pushed = (pushed.unflatten(1, (b, m)) + state.unsqueeze(2)).flatten(1, 2)
    first = F.silu(_normalised(pushed, 1.0))
    second = F.silu(_normalised(_linear(weights, "hidden", first), 1.0))
    # One output: a product and a sum read the rows once, where a matmul of width 1 takes six times as long.
    out = (second * weights["out_weight"].transpose(1, 2)).sum(dim=-1) + weights[
        "out_bias"
    ].squeeze(1)
    return out.view(n, groups // n, b, m)


def _per_member(values: Float[Tensor, "n b c"], groups: int) -> Float[Tensor, "g b c"]:
    return values.repeat_interleave(groups // len(values), dim=0)


def _linear(
    weights: CriticWeights, name: str, inputs: Float[Tensor, "g b i"]
) -> Float[Tensor, "g b o"]:
    return grouped_linear(inputs, weights[f"{name}_weight"], weights[f"{name}_bias"])


def _squash(values: Float[Tensor, "g b c"]) -> Float[Tensor, "g b c"]:
    """tanh(LayerNorm(x)) as 2 sigmoid(2 LayerNorm(x)) - 1: on a CPU torch's tanh takes 9 times as long."""
    return 2.0 * torch.sigmoid(_normalised(values, 2.0)) - 1.0


def _normalised(values: Float[Tensor, "g b c"], gain: float) -> Float[Tensor, "g b c"]:
    """LayerNorm times a constant; without the constant torch takes a path half as fast."""
    width = values.shape[-1]
    return F.layer_norm(values, (width,), values.new_full((width,), gain), values.new_zeros(width))
