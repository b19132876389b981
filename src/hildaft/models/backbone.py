"""The frozen networks between the cameras and the actors: their seam, their weight files, their use at the worker."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hildaft.types import Encoded, HilDaftError, Observation

WEIGHTS_FOLDER: Final = Path(__file__).parent / "weights"
"""Where the shipped weights lie."""


@runtime_checkable
class Backbone(Protocol):
    """A frozen vision-language network: images and an instruction in, h out (eq. 3)."""

    @property
    def dim(self) -> int:
        """Width d of h."""
        ...

    @property
    def hash(self) -> str:
        """Content hash of weights and configuration."""
        ...

    @property
    def any_image_size(self) -> bool:
        """Whether it brings images to its own size; else it is given those of `to_network_size`."""
        ...

    def embed_instruction(self, text: str) -> Float[Tensor, "l e"]:
        """Embeds an instruction, once per task; raises HilDaftError where the text holds no word."""
        ...

    def encode(
        self, images: Mapping[str, UInt8[Tensor, "b h w 3"]], instruction: Float[Tensor, "l e"]
    ) -> Float[Tensor, "b d"]:
        """The embedding h of a batch of observations (RGB, 0-255) under one embedded instruction (eq. 3).

        Paper: Eq. 3.
        """
        ...


@runtime_checkable
class ImageEncoder(Protocol):
    """A frozen image network for the critics and the refinement actor."""

    @property
    def dim(self) -> int:
        """Width of the feature vector."""
        ...

    @property
    def hash(self) -> str:
        """Content hash of weights and configuration."""
        ...

    @property
    def any_image_size(self) -> bool:
        """Whether it brings images to its own size; else it is given those of `to_network_size`."""
        ...

    def encode(self, images: Mapping[str, UInt8[Tensor, "b h w 3"]]) -> Float[Tensor, "b f"]:
        """Features of a batch of observations (RGB, 0-255)."""
        ...


@final
class FrozenEncoders:
    """Backbone and image encoder as the worker uses them: one observation in, `Encoded` out.

    Runs without autograd on the calling thread; the entry point of the worker sets how many threads torch may use.
    """

    def __init__(
        self, backbone: Backbone, image_encoder: ImageEncoder, instructions: Mapping[str, str]
    ) -> None:
        """Embeds the instruction of every task once; raises HilDaftError where one is empty."""
        self._backbone = backbone
        self._image_encoder = image_encoder
        with torch.inference_mode():
            self._instructions = {
                task: backbone.embed_instruction(text) for task, text in instructions.items()
            }
        joined = json.dumps([backbone.hash, image_encoder.hash, sorted(instructions.items())])
        self._hash = hashlib.sha256(joined.encode()).hexdigest()
        self._newest: tuple[Observation, str, Encoded] | None = None

    @property
    def hash(self) -> str:
        """Content hash of both networks and of the instructions: equal hashes make equal `Encoded`."""
        return self._hash

    @property
    def h_dim(self) -> int:
        """Width of `Encoded.h`."""
        return self._backbone.dim

    @property
    def feature_dim(self) -> int:
        """Width of `Encoded.features`."""
        return self._image_encoder.dim

    def encode(self, observation: Observation, task: str) -> Encoded:
        """Runs both networks on one observation; raises HilDaftError for an unknown task or a missing camera.

        Asked again for the newest observation, it remembers: a classifier of success sees what the policy sees.
        """
        if self._newest is not None and self._newest[0] is observation and self._newest[1] == task:
            return self._newest[2]
        if task not in self._instructions:
            known = ", ".join(sorted(self._instructions))
            msg = f"task={task!r}: one of {known} is allowed; give it an instruction first"
            raise HilDaftError(msg)
        with torch.inference_mode():
            seen = _as_batch(observation, whole=self._backbone.any_image_size)
            h = self._backbone.encode(seen, self._instructions[task])
            if self._image_encoder.any_image_size != self._backbone.any_image_size:
                seen = _as_batch(observation, whole=self._image_encoder.any_image_size)
            features = self._image_encoder.encode(seen)
        encoded = Encoded(
            h=h[0].float().numpy(),
            features=features[0].float().numpy(),
            proprio=observation.proprio.astype(np.float32),
        )
        self._newest = (observation, task, encoded)
        return encoded


def _as_batch(observation: Observation, *, whole: bool) -> dict[str, UInt8[Tensor, "1 h w 3"]]:
    batch: dict[str, Tensor] = {}
    for camera, image in observation.images.items():
        sized = image if whole else to_network_size(image)
        # A decoded JPEG is read-only, which torch warns about.
        writable = np.require(sized, requirements=("C", "W"))
        batch[camera] = torch.from_numpy(writable).unsqueeze(0)
    return batch


NETWORK_IMAGE_SIZE: Final = 128
"""Side in px of the images the shipped networks take, both cameras."""


def to_network_size(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Averages 2x2 pixels until the image is `NETWORK_IMAGE_SIZE` high; a smaller one is left as it is.

    Rounds to uint8 as the pretraining data does, so that training and acting see the same pixels.
    """
    while image.shape[0] > NETWORK_IMAGE_SIZE:
        wide = image.astype(np.uint16)
        total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
        image = ((total + 2) // 4).astype(np.uint8)
    return np.ascontiguousarray(image)


def camera_image(
    images: Mapping[str, UInt8[Tensor, "b h w 3"]], camera: str, size: int
) -> Float[Tensor, "b 3 s s"]:
    """One camera as channels first in [-1, 1]; raises HilDaftError where it is missing or of another size."""
    if camera not in images:
        got = ", ".join(sorted(images)) or "none"
        msg = f"camera {camera!r} is missing from the images ({got}): name it so at the robot"
        raise HilDaftError(msg)
    image = images[camera]
    if image.shape[1:3] != (size, size):
        msg = (
            f"camera {camera!r} gives {image.shape[2]}x{image.shape[1]} px: "
            f"{size}x{size} is allowed (larger ones by a factor of 2, 4, ...)"
        )
        raise HilDaftError(msg)
    return image.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def content_hash(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over a configuration and named tensors: names, types, shapes and bytes."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_weights(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], recipe: Mapping[str, Any]
) -> None:
    """Writes weights as safetensors; the metadata holds the configuration, the recipe and the content hash."""
    metadata = {
        "config": json.dumps(config, sort_keys=True),
        "recipe": json.dumps(recipe, sort_keys=True),
        "hash": content_hash(config, tensors),
    }
    kept = {name: value.detach().contiguous() for name, value in tensors.items()}
    partial = path.with_name(path.name + ".part")
    save_file(kept, partial, metadata)
    partial.chmod(0o644)
    partial.replace(path)


def load_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Reads (configuration, tensors, content hash); raises HilDaftError for a missing, damaged or altered file."""
    if not path.is_file():
        msg = f"weights file {path}: missing; reinstall the package or run `hildaft pretrain`"
        raise HilDaftError(msg)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config: dict[str, Any] = json.loads(metadata["config"])
        expected = metadata["hash"]
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        msg = f"weights file {path}: damaged ({reason}); reinstall the package"
        raise HilDaftError(msg) from error
    found = content_hash(config, tensors)
    if found != expected:
        msg = f"weights file {path}: content hash {found[:12]} is not {expected[:12]}; reinstall the package"
        raise HilDaftError(msg)
    return config, tensors, found
