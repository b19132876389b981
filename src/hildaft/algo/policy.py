"""The policy a worker runs: frozen encoders, then the two actors, one observation at a time."""

from collections.abc import Mapping
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from hildaft.models.consistency import sample_primary_noise
from hildaft.types import Action, Encoded, HilDaftError, Observation, RefinementCommand


@runtime_checkable
class Encoders(Protocol):
    """The frozen networks that turn an observation into what actors and critics read."""

    @property
    def hash(self) -> str:
        """Content hash, recorded with every episode."""
        ...

    def encode(self, observation: Observation, task: str) -> Encoded:
        """Runs them on one observation."""
        ...


@runtime_checkable
class ActingNetworks(Protocol):
    """What a learner publishes and a policy acts with: `Actors`, or a baseline's."""

    def primary_action(
        self,
        h: Float[Tensor, "*b d"],
        features: Float[Tensor, "*b f"],
        proprio: Float[Tensor, "*b p"],
        noise: Float[Tensor, "*b 7"],
    ) -> Float[Tensor, "*b 7"]:
        """An unclipped action in silence, from a sample of N(0, I)."""
        ...

    def refined_action(
        self,
        h: Float[Tensor, "*b d"],
        features: Float[Tensor, "*b f"],
        proprio: Float[Tensor, "*b p"],
        command: Int[Tensor, "*b"],
        noise: Float[Tensor, "*b 7"],
    ) -> Float[Tensor, "*b 7"]:
        """An unclipped action for a command's index."""
        ...

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over published weights; raises HilDaftError where they do not fit."""
        ...


@final
class DualActorPolicy:
    """Primary mode in silence, refinement mode on a command; one noise sample per action.

    One that does not listen (`listens` off: no refinement actor) stays in primary mode whatever is said.

    Differs from the paper (null_bypass): with `bypass_null` the refinement actor is not asked when
    there is no command, since running it on "[null]" costs success.

    Paper: Alg. 1, line 21.
    """

    def __init__(
        self,
        encoders: Encoders,
        actors: ActingNetworks,
        *,
        seed: int,
        bypass_null: bool = True,
        listens: bool = True,
        version: int = 0,
    ) -> None:
        self._encoders = encoders
        self._actors = actors
        self._bypass_null, self._listens = bypass_null, listens
        self._version = version
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def version(self) -> int:
        """Version of the weights now acting."""
        return self._version

    @property
    def encoder_hash(self) -> str:
        """Content hash of the frozen encoders."""
        return self._encoders.hash

    def begin(self, seed: int) -> None:
        """Restarts the noise, at the start of an episode."""
        self._generator.manual_seed(seed)

    def encode(self, observation: Observation, task: str) -> Encoded:
        """Runs the frozen encoders."""
        return self._encoders.encode(observation, task)

    @torch.inference_mode()
    def act(self, encoded: Encoded, command: RefinementCommand) -> Action:
        """Samples an action and clips it to [-1, 1]."""
        h = torch.from_numpy(encoded.h).unsqueeze(0)
        features = torch.from_numpy(encoded.features).unsqueeze(0)
        proprio = torch.from_numpy(encoded.proprio).unsqueeze(0)
        noise = sample_primary_noise((1,), self._generator)
        if not self._listens or (command.is_null and self._bypass_null):
            action = self._actors.primary_action(h, features, proprio, noise)
        else:
            index = torch.tensor([command.index])
            action = self._actors.refined_action(h, features, proprio, index, noise)
        return action[0].clamp(-1.0, 1.0).numpy().astype(np.float32)

    def load_weights(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Takes over published weights between two steps."""
        self._actors.load_weights(weights)
        self._version = version

    def load(self, tensors: bytes, version: int) -> None:
        """Takes over published weights that came as a safetensors file.

        Raises:
            HilDaftError: they are damaged or of another configuration; nothing is changed then.
        """
        try:
            weights = load_safetensors(tensors)
        except SafetensorError as error:
            msg = (
                f"weights of version {version}: no safetensors file ({error}); restart the learner"
            )
            raise HilDaftError(msg) from error
        self.load_weights(weights, version)
