"""The frozen networks between the cameras and the actors: their seam, their weight files, their use at the worker."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from hildaft.types import Encoded, HilDaftError, Observation

Network = TypeVar("Network", bound=nn.Module)

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
        """Runs both networks on one observation; raises HilDaftError for an unknown task or a missing camera."""
        if task not in self._instructions:
            known = ", ".join(sorted(self._instructions))
            msg = f"task={task!r}: one of {known} is allowed; give it an instruction first"
            raise HilDaftError(msg)
        with torch.inference_mode():
            seen = _as_batch(observation)
            h = self._backbone.encode(seen, self._instructions[task])
            features = self._image_encoder.encode(seen)
        return Encoded(
            h=h[0].float().numpy(),
            features=features[0].float().numpy(),
            proprio=observation.proprio.astype(np.float32),
        )


def _as_batch(observation: Observation) -> dict[str, UInt8[Tensor, "1 h w 3"]]:
    batch: dict[str, Tensor] = {}
    for camera, image in observation.images.items():
        # A decoded JPEG is read-only, which torch warns about.
        writable = np.require(image, requirements=("C", "W"))
        batch[camera] = torch.from_numpy(writable).unsqueeze(0)
    return batch


NETWORK_IMAGE_SIZE: Final = 128
"""Side in px of the images the shipped backbones take, both cameras."""


def to_side(image: UInt8[Tensor, "b h h 3"], side: int) -> UInt8[Tensor, "b s s 3"] | None:
    """Square images brought to a side: 2x2 means while larger, pixels doubled while smaller; None where neither fits.

    Means are rounded to uint8, in pretraining as in acting, so that both see the same pixels.
    """
    while image.shape[1] >= 2 * side:
        total = F.avg_pool2d(image.permute(0, 3, 1, 2).float(), 2)
        image = total.add(0.5).floor().to(torch.uint8).permute(0, 2, 3, 1)
    while 2 * image.shape[1] <= side:
        image = image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    return image if image.shape[1:3] == (side, side) else None


def camera_image(
    images: Mapping[str, UInt8[Tensor, "b h w 3"]], camera: str, size: int
) -> Float[Tensor, "b 3 s s"]:
    """One camera as channels first in [-1, 1]; raises HilDaftError where it is missing or its size does not fit."""
    if camera not in images:
        got = ", ".join(sorted(images)) or "none"
        msg = f"camera {camera!r} is missing from the images ({got}): name it so at the robot"
        raise HilDaftError(msg)
    image = images[camera]
    sized = to_side(image, size) if image.shape[1] == image.shape[2] else None
    if sized is None:
        msg = (
            f"camera {camera!r} gives {image.shape[2]}x{image.shape[1]} px: "
            f"{size}x{size} is allowed, larger or smaller by a factor of 2, 4, ..."
        )
        raise HilDaftError(msg)
    return sized.permute(0, 3, 1, 2).float() / 127.5 - 1.0


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


def json_record(config: Any) -> dict[str, Any]:  # noqa: ANN401 - any frozen dataclass
    """A configuration as JSON values, as weight files and content hashes hold it."""
    return json.loads(json.dumps(asdict(config)))


def load_frozen(path: Path, what: str, build: Callable[[dict[str, Any]], Network]) -> Network:
    """A shipped network, frozen; `build` makes it from the configuration that its weight file holds.

    Raises:
        HilDaftError: the file is missing, damaged, or one of another network.
    """
    record, tensors, _ = load_weights(path)
    try:
        # JSON knows no tuples.
        network = build({name: _tuples(value) for name, value in record.items()})
        network.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, HilDaftError) as error:
        msg = f"weights file {path}: not weights of {what}; pretrain again or reinstall"
        raise HilDaftError(msg) from error
    return network.requires_grad_(requires_grad=False).eval()


def _tuples(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value


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
