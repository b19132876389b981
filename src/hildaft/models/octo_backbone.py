"""A published Octo as a `Backbone`: raw images and words in, h out."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from hildaft.models.octo_checkpoint import OctoCheckpoint, load_octo_checkpoint
from hildaft.models.octo_layers import StandardisedConv
from hildaft.models.t5 import Tokenizer, build_t5, run_t5
from hildaft.types import HilDaftError

CAMERAS: Final = {"head": "primary", "front": "primary", "primary": "primary", "wrist": "wrist"}
"""A robot's camera names and Octo's; other cameras are not shown to it."""


@final
class OctoBackbone:
    """Octo, frozen, on single observations (window 1): h is its readout token.

    A camera the robot lacks leaves the sequence, as in the original. Images of another size are resized with an
    antialiased Lanczos filter, as Octo's evaluation does. There is no goal image (pixel value 0, as Octo has it).
    """

    def __init__(
        self, checkpoint: OctoCheckpoint, tokenizer: Tokenizer, cameras: Mapping[str, str]
    ) -> None:
        """Raises HilDaftError where the checkpoint has no text encoder inside or `transformers` is missing."""
        if not checkpoint.t5_sizes:
            msg = "octo checkpoint: it has no T5 encoder inside; use one trained on language"
            raise HilDaftError(msg)
        self._octo = checkpoint.octo
        self._t5 = build_t5(checkpoint.t5_sizes, checkpoint.t5_tensors)
        self._tokenizer = tokenizer
        self._cameras = dict(cameras)
        record = [checkpoint.hash, tokenizer.fingerprint(), sorted(self._cameras.items())]
        self._hash = hashlib.sha256(json.dumps(record).encode()).hexdigest()
        for module in self._octo.modules():
            if isinstance(module, StandardisedConv):
                module.fold()

    @property
    def dim(self) -> int:
        """Width of h."""
        return self._octo.config.width

    @property
    def hash(self) -> str:
        """Content hash of the parameters, the tokenizer and the cameras' names."""
        return self._hash

    def embed_instruction(self, text: str) -> Float[Tensor, "l e"]:
        """T5's hidden states of an instruction, padded as in training; raises HilDaftError where it is empty."""
        if not text.strip():
            msg = f"instruction={text!r}: at least one word is allowed; say what to do"
            raise HilDaftError(msg)
        ids, mask = self._tokenizer.ids([text], self._octo.config.language_tokens)
        return run_t5(self._t5, ids, mask)[0]

    def encode(
        self, images: Mapping[str, UInt8[Tensor, "b h w 3"]], instruction: Float[Tensor, "l e"]
    ) -> Float[Tensor, "b d"]:
        """The embedding h of a batch of observations (eq. 3).

        Raises:
            HilDaftError: none of the cameras is one Octo knows.
        """
        config = self._octo.config
        named = {self._cameras[n]: image for n, image in images.items() if n in self._cameras}
        pixels = {
            name: self._pixels(named[name], size) for name, size in config.cameras if name in named
        }
        if not pixels:
            got, known = ", ".join(sorted(images)) or "none", ", ".join(sorted(self._cameras))
            msg = f"images of camera {got}: Octo is shown {known}; name the robot's cameras so"
            raise HilDaftError(msg)
        count = len(next(iter(pixels.values())))
        language = instruction.expand(count, -1, -1)
        mask = torch.ones(language.shape[:2], dtype=torch.bool, device=language.device)
        return self._octo.embed(pixels, language, mask, mask.new_ones(count, 1))

    def _pixels(
        self, images: UInt8[Tensor, "b h w 3"], size: int
    ) -> Float[Tensor, "b 1 c size size"]:
        resized = resize_lanczos(images, size).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        if self._octo.config.goal_images:
            resized = torch.cat([resized, torch.full_like(resized, -1.0)], 1)
        return resized.unsqueeze(1)


def resize_lanczos(images: UInt8[Tensor, "b h w 3"], size: int) -> UInt8[Tensor, "b s s 3"]:
    """Square images by an antialiased Lanczos filter, rounded and clipped; the aspect ratio is not kept, as in Octo."""
    if images.shape[1:3] == (size, size):
        return images
    resized = [
        np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))
        for image in images.cpu().numpy()
    ]
    return torch.from_numpy(np.stack(resized)).to(images.device)


def load_octo(source: str, tokenizer: str = "") -> OctoBackbone:
    """A published Octo by folder or name.

    Its tokenizer is the one given (folder or name), else the folder `tokenizer` inside the checkpoint's where there is
    one, else the one it was trained with, by name.

    Raises HilDaftError as `load_octo_checkpoint` and `Tokenizer` do.
    """
    checkpoint = load_octo_checkpoint(source)
    inside = Path(source) / "tokenizer"
    name = tokenizer or (str(inside) if inside.is_dir() else checkpoint.tokenizer)
    return OctoBackbone(checkpoint, Tokenizer(name), CAMERAS)
