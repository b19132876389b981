"""One critic, written the plain way: the oracle of the batched ones and the other side of the benchmark."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hildaft.models.critic import CriticConfig, Critics


class ReferenceCritic(nn.Module):
    """Q(s, a) of one member of one task's ensemble, for one action per row."""

    def __init__(self, config: CriticConfig, features: int, proprio: int) -> None:
        super().__init__()
        widths = (config.feature_projection, config.proprio_projection, config.action_projection)
        self.features_in = nn.Linear(features, widths[0])
        self.proprio_in = nn.Linear(proprio, widths[1])
        self.action_in = nn.Linear(7, widths[2])
        self.first = nn.Linear(sum(widths), config.hidden)
        self.hidden = nn.Linear(config.hidden, config.hidden)
        self.out = nn.Linear(config.hidden, 1)

    def forward(self, features: Tensor, proprio: Tensor, action: Tensor) -> Tensor:
        projected = [
            torch.tanh(_norm(layer(inputs)))
            for layer, inputs in (
                (self.features_in, features),
                (self.proprio_in, proprio),
                (self.action_in, action.clamp(-1.0, 1.0)),
            )
        ]
        hidden = F.silu(_norm(self.first(torch.cat(projected, dim=-1))))
        hidden = F.silu(_norm(self.hidden(hidden)))
        return self.out(hidden).squeeze(-1)


def reference_of(critics: Critics, config: CriticConfig, task: int, member: int) -> ReferenceCritic:
    """The reference with the weights of one member of one task."""
    own = {name: tensor.detach()[task, member] for name, tensor in critics.named_parameters()}
    reference = ReferenceCritic(
        config, own["features_in_weight"].shape[0], own["proprio_in_weight"].shape[0]
    )
    with torch.no_grad():
        for name in ("features_in", "proprio_in", "action_in", "hidden", "out"):
            layer = getattr(reference, name)
            layer.weight.copy_(own[f"{name}_weight"].T)
            layer.bias.copy_(own[f"{name}_bias"].flatten())
        parts = [own["state_to_hidden_weight"], own["action_to_hidden_weight"]]
        reference.first.weight.copy_(torch.cat(parts).T)
        reference.first.bias.copy_(own["state_to_hidden_bias"].flatten())
    return reference


def split_gradients(reference: ReferenceCritic, config: CriticConfig) -> dict[str, Tensor]:
    """The reference's gradients under the batched critics' names and layouts."""
    gradients: dict[str, Tensor] = {}
    for name in ("features_in", "proprio_in", "action_in", "hidden", "out"):
        layer = getattr(reference, name)
        gradients[f"{name}_weight"] = layer.weight.grad.T
        gradients[f"{name}_bias"] = layer.bias.grad.unsqueeze(0)
    state = config.feature_projection + config.proprio_projection
    both = reference.first.weight.grad.T
    gradients["state_to_hidden_weight"] = both[:state]
    gradients["action_to_hidden_weight"] = both[state:]
    gradients["state_to_hidden_bias"] = reference.first.bias.grad.unsqueeze(0)
    return gradients


def _norm(values: Tensor) -> Tensor:
    return F.layer_norm(values, values.shape[-1:])
