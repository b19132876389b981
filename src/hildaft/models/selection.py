"""Which frozen encoders a run uses: a word, or a word and where its weights lie ("octo:/data/octo-small")."""

import difflib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hildaft.models.backbone import Backbone, ImageEncoder
from hildaft.types import HilDaftError

BACKBONES: Final = (
    *("octo-tiny", "smol-tiny"),
    *("octo-small", "octo-base", "octo-small-1.0", "octo-base-1.0", "smolvla"),
)
"""Words that stand alone; `octo:` and `smolvla:` take any folder or hub name besides."""
_SOURCED: Final = ("octo", "smolvla")

IMAGE_ENCODERS: Final = ("keypoints", "keypoints-unread")
_SOURCED_IMAGE: Final = ("resnet10", "resnet18")

TEXT_ENCODERS: Final = ("words", "minilm")
_SOURCED_TEXT: Final = ("t5", "minilm")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The encoders beside the backbone, and what a published backbone needs to know."""

    image: str = "keypoints"
    """What critics and refinement actor see: `keypoints` (embedded: the bolt bench's geometry as read),
    `keypoints-unread` (what it is read from, for scenes without bolts; an environment of your own starts with it),
    `resnet10:FILE` or `resnet18:FILE` (torchvision's names, .safetensors or .pth). The paper's is a frozen ResNet."""
    text: str = "words"
    """Embedding of the refinement commands: `words` (embedded), `t5:FOLDER-OR-NAME` (the paper's), `minilm`."""
    tokenizer: str = ""
    """Folder or name of a published Octo's tokenizer; where empty, the checkpoint's folder `tokenizer`, or the one it
    was trained with, by name."""
    state_token: bool = False
    """Pools SmolVLA's state token too (eq. 17 leaves open which tokens its mask means)."""

    def __post_init__(self) -> None:
        split_choice("encoders.image", self.image, IMAGE_ENCODERS, _SOURCED_IMAGE)
        split_choice("encoders.text", self.text, TEXT_ENCODERS, _SOURCED_TEXT)


def split_choice(
    field: str, given: str, words: tuple[str, ...], sourced: tuple[str, ...]
) -> tuple[str, str]:
    """A word and its source ("" where it stands alone).

    Raises HilDaftError, with the likely word, for anything that is neither one of `words` nor `WORD:SOURCE`.
    """
    word, colon, source = given.partition(":")
    if (not colon and word in words) or (word in sourced and source):
        return word, source
    allowed = [*words, *(f"{name}:SOURCE" for name in sourced)]
    close = difflib.get_close_matches(given, allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    msg = f"{field}={given!r}: {', '.join(allowed)} are allowed{hint}"
    raise HilDaftError(msg)


def check_backbone(given: str) -> None:
    """Raises HilDaftError, with the likely word, unless `given` names a backbone."""
    split_choice("backbone", given, BACKBONES, _SOURCED)


def load_backbone(given: str, config: EncoderConfig) -> Backbone:
    """The backbone of that name, frozen. Only what the choice needs is imported.

    Raises HilDaftError where the name, its weights or a package it needs is missing.
    """
    word, source = split_choice("backbone", given, BACKBONES, _SOURCED)
    if word == "octo-tiny":
        from hildaft.models.octo_tiny import load_octo_tiny

        return load_octo_tiny()
    if word == "smol-tiny":
        from hildaft.models.smol import load_smol_tiny

        return load_smol_tiny()
    if word == "smolvla":
        from hildaft.models.smolvla import HUB_NAME, load_smolvla

        return load_smolvla(source or HUB_NAME, pool_state=config.state_token)
    from hildaft.models.octo_backbone import load_octo

    return load_octo(source or word, config.tokenizer)


def load_image_encoder(config: EncoderConfig) -> ImageEncoder:
    """The image encoder a run chose, frozen; raises HilDaftError where its weights are missing or foreign."""
    word, source = split_choice("encoders.image", config.image, IMAGE_ENCODERS, _SOURCED_IMAGE)
    if word in IMAGE_ENCODERS:
        from hildaft.models.encoders import UnreadKeyPoints, shipped_image_encoder

        embedded = shipped_image_encoder()
        return embedded if word == "keypoints" else UnreadKeyPoints(embedded)
    from hildaft.models.resnet import ResNetConfig, load_resnet

    depth: Literal[10, 18] = 10 if word == "resnet10" else 18
    return load_resnet(Path(source), ResNetConfig(depth=depth))


@lru_cache(maxsize=1)
def embed_commands(phrases: tuple[str, ...], config: EncoderConfig) -> Float[Tensor, "c e"]:
    """The refinement commands by the text encoder a run chose, one row of length 1 each; not to be written to.

    Learner, policy and checkpoint of one run ask for the same table, and a text encoder takes seconds to load.

    Raises HilDaftError where the encoder, its tokenizer or a package it needs is missing.
    """
    word, source = split_choice("encoders.text", config.text, TEXT_ENCODERS, _SOURCED_TEXT)
    with torch.no_grad():
        if word == "words":
            from hildaft.models.encoders import embed_phrases

            return embed_phrases(phrases)
        if word == "t5":
            from hildaft.models.t5 import embed_phrases_t5

            return embed_phrases_t5(phrases, source)
        from hildaft.models.minilm import embed_phrases_minilm

        return embed_phrases_minilm(phrases, source)
