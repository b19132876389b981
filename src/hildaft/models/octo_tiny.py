"""octo-tiny, the small Octo this package ships: its network, and the backbone made of it and the image encoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from hildaft.models.backbone import (
    NETWORK_IMAGE_SIZE,
    WEIGHTS_FOLDER,
    camera_image,
    content_hash,
    json_record,
    load_frozen,
)
from hildaft.models.encoders import KeyPointEncoder, shipped_image_encoder
from hildaft.models.octo import Octo, OctoConfig, OctoTokens
from hildaft.models.octo_layers import StandardisedConv
from hildaft.models.words import HashedWords
from hildaft.types import HilDaftError

READING: Final = "reading"
"""The vector observation of octo-tiny: what the image encoder reads off both cameras."""

OCTO_TINY: Final = OctoConfig(
    cameras=(("head", NETWORK_IMAGE_SIZE), ("wrist", NETWORK_IMAGE_SIZE)),
    stem_channels=(16, 32, 64, 96),
    stem_groups=4,
    stem_dim=96,
    goal_images=False,
    language_tokens=12,
    language_dim=64,
    repeat_language=False,
    vectors=((READING, 77),),
    max_horizon=1,
    width=128,
    layers=2,
    heads=4,
    mlp_dim=384,
)
"""The embedded backbone: window 1, so that repeating the language within the step would add nothing."""


@final
class OctoTiny(nn.Module):
    """The network of octo-tiny: a small Octo, hashed words, and one token of what the image encoder reads."""

    def __init__(self, config: OctoConfig = OCTO_TINY, reader: str = "") -> None:
        super().__init__()
        self.octo = Octo(config)
        self.words = HashedWords(config.language_dim, config.language_tokens)
        self.reader = reader
        """Content hash of the image encoder whose reading it was trained on."""

    @property
    def config(self) -> OctoConfig:
        """Shape of the transformer."""
        return self.octo.config

    @property
    def dim(self) -> int:
        """Width of h."""
        return self.config.width

    @property
    def hash(self) -> str:
        """Content hash of the weights as they are now, and of the configuration."""
        return content_hash(self.config_record(), self.state_dict())

    def config_record(self) -> dict[str, Any]:
        """Configuration and the image encoder's hash, as JSON values."""
        return json_record(self.config) | {"reader": self.reader}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "OctoTiny":
        """The network of `config_record`, at random weights; raises TypeError or KeyError for another record."""
        return cls(
            OctoConfig(**{k: v for k, v in record.items() if k != "reader"}), record["reader"]
        )

    def tokens(
        self,
        pixels: Mapping[str, Float[Tensor, "b 3 s s"]],
        language: Float[Tensor, "b l e"],
        mask: Bool[Tensor, "b l"],
        reading: Float[Tensor, "b 77"],
    ) -> OctoTokens:
        """All output tokens for single observations (window 1)."""
        window, vectors = _window(pixels, reading)
        return self.octo(window, language, mask, mask.new_ones(len(mask), 1), vectors=vectors)

    def trunk(
        self,
        pixels: Mapping[str, Float[Tensor, "b 3 s s"]],
        words: Int[Tensor, "b l"],
        mask: Bool[Tensor, "b l"],
        reading: Float[Tensor, "b 77"],
    ) -> Float[Tensor, "b n d"]:
        """Tokens of single observations before the last block."""
        window, vectors = _window(pixels, reading)
        step = mask.new_ones(len(mask), 1)
        return self.octo.trunk(window, self.words(words), mask, step, vectors)[0]


def _window(
    pixels: Mapping[str, Float[Tensor, "b 3 s s"]], reading: Float[Tensor, "b r"]
) -> tuple[dict[str, Float[Tensor, "b 1 3 s s"]], dict[str, Float[Tensor, "b 1 r"]]]:
    """Single observations as windows of one step."""
    window = {name: image.unsqueeze(1) for name, image in pixels.items()}
    return window, {READING: reading.unsqueeze(1)}


@final
class OctoTinyBackbone:
    """octo-tiny as a `Backbone`: its network and the image encoder that reads for it."""

    def __init__(self, network: OctoTiny, reader: KeyPointEncoder) -> None:
        """Raises HilDaftError where the network was trained on another image encoder's reading."""
        if reader.hash != network.reader:
            msg = (
                f"octo-tiny reader={network.reader[:12]!r}: the image encoder here is {reader.hash[:12]!r}; "
                "use weights that were pretrained together"
            )
            raise HilDaftError(msg)
        self._network, self._reader = network, reader

    @property
    def dim(self) -> int:
        """Width of h."""
        return self._network.dim

    @property
    def hash(self) -> str:
        """Content hash of the network, which names the image encoder's."""
        return self._network.hash

    def embed_instruction(self, text: str) -> Float[Tensor, "l e"]:
        """Embeddings of an instruction's first `language_tokens` words; raises HilDaftError where it has none."""
        return self._network.words.embed(text)

    def encode(
        self, images: Mapping[str, UInt8[Tensor, "b h w 3"]], instruction: Float[Tensor, "l e"]
    ) -> Float[Tensor, "b d"]:
        """The embedding h of a batch of observations under one embedded instruction (eq. 3)."""
        network = self._network
        cameras = network.config.cameras
        window, vectors = _window(
            {name: camera_image(images, name, size) for name, size in cameras},
            self._reader.encode(images),
        )
        count = len(vectors[READING])
        language = instruction.expand(count, -1, -1)
        mask = torch.ones(language.shape[:2], dtype=torch.bool, device=language.device)
        return network.octo.embed(window, language, mask, mask.new_ones(count, 1), vectors)


OCTO_FILE: Final = "octo_tiny.safetensors"


def load_octo_network(path: Path) -> OctoTiny:
    """The network of octo-tiny, frozen; raises HilDaftError for a missing, damaged or foreign file."""
    return load_frozen(path, "octo-tiny", OctoTiny.from_record)


def load_octo_tiny() -> OctoTinyBackbone:
    """The shipped backbone, frozen, on the shipped image encoder; raises HilDaftError for an unusable file."""
    network = load_octo_network(WEIGHTS_FOLDER / OCTO_FILE)
    for module in network.modules():
        if isinstance(module, StandardisedConv):
            # A fifth of the time of a stem at batch 1.
            module.fold()
    return OctoTinyBackbone(network, shipped_image_encoder())
