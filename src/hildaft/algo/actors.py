"""The two actors and the normalisation they share: what is published to a worker and acts there."""

from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hildaft.data.replay import Dims
from hildaft.models.consistency import ConsistencyConfig, ConsistencyHead, steer_noise
from hildaft.models.normalisation import Normalisation
from hildaft.models.refinement import RefinementActor, RefinementConfig
from hildaft.types import HilDaftError


@final
class Actors(nn.Module):
    """Primary actor, refinement actor and normalisation, initialised from a seed of their own."""

    def __init__(
        self,
        primary: ConsistencyConfig,
        refinement: RefinementConfig,
        dims: Dims,
        command_table: Float[Tensor, "27 c"],
        seed: int,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.normalisation = Normalisation(dims.h, dims.features)
            seen = dims.h + (dims.features if primary.reads_features else 0)
            self.primary = ConsistencyHead(primary, seen, dims.proprio)
            self.refinement = RefinementActor(
                refinement, dims.features, dims.proprio, command_table
            )

    def embed_primary(
        self,
        h: Float[Tensor, "*b d"],
        features: Float[Tensor, "*b f"],
        proprio: Float[Tensor, "*b p"],
    ) -> Float[Tensor, "*b hidden"]:
        """The state's share of the primary actor's first layer, from what the encoders give."""
        return self.embed_standard(*self.standardise(h, features), proprio)

    def standardise(
        self, h: Float[Tensor, "*b d"], features: Float[Tensor, "*b f"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b f"]]:
        """What the networks read: h and image features, standardised; once per batch is enough."""
        return self.normalisation.standardise_h(h), self.normalisation.standardise_features(
            features
        )

    def embed_standard(
        self,
        h: Float[Tensor, "*b d"],
        features: Float[Tensor, "*b f"],
        proprio: Float[Tensor, "*b p"],
    ) -> Float[Tensor, "*b hidden"]:
        """`embed_primary` of what `standardise` returned."""
        seen = torch.cat([h, features], dim=-1) if self.primary.config.reads_features else h
        return self.primary.embed_state(seen, proprio)

    def primary_action(
        self,
        h: Float[Tensor, "*b d"],
        features: Float[Tensor, "*b f"],
        proprio: Float[Tensor, "*b p"],
        noise: Float[Tensor, "*b 7"],
    ) -> Float[Tensor, "*b 7"]:
        """Primary mode: an unclipped action from noise of eq. 1."""
        return self.primary.act(self.embed_primary(h, features, proprio), noise)

    def refined_action(
        self,
        h: Float[Tensor, "*b d"],
        features: Float[Tensor, "*b f"],
        proprio: Float[Tensor, "*b p"],
        command: Int[Tensor, "*b"],
        noise: Float[Tensor, "*b 7"],
    ) -> Float[Tensor, "*b 7"]:
        """Refinement mode: an unclipped action from noise of eq. 2."""
        h, features = self.standardise(h, features)
        mean = self.refinement.mean(self.refinement.embed_state(features, proprio), command)
        state = self.embed_standard(h, features, proprio)
        return self.primary.act(state, steer_noise(noise, mean))

    def weights(self) -> dict[str, Tensor]:
        """A copy of every weight and of the normalisation, by name."""
        return {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over what `weights` returned, in place.

        Raises:
            HilDaftError: a name is missing or unknown, or a shape differs; nothing is changed then.
        """
        own = self.state_dict()
        check_tensors("weights", own, weights)
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def check_tensors(what: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raises HilDaftError unless both hold the same names with the same shapes."""
    for name in sorted(own.keys() ^ given.keys()):
        state = "missing" if name in own else "unknown"
        msg = f"{what}: {name} is {state}; they come from another configuration, use that one"
        raise HilDaftError(msg)
    for name, tensor in own.items():
        if tensor.shape != given[name].shape:
            msg = (
                f"{what}: {name} has shape {tuple(given[name].shape)}, expected "
                f"{tuple(tensor.shape)}; they come from another configuration, use that one"
            )
            raise HilDaftError(msg)
