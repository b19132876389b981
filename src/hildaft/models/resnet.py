"""ResNet-10 and ResNet-18 in plain torch, with torchvision's parameter names, as a frozen `ImageEncoder`.

He et al., "Deep Residual Learning for Image Recognition", 2016; ResNet-10 has one block per stage, as in HIL-SERL.
Averaging the last map would lose where things are, so it stays a grid, its channels projected by a fixed random matrix.
"""

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast, final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from hildaft.models.backbone import content_hash
from hildaft.types import HilDaftError

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
_STAGES: Final = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Channels and stride of each stage."""
_SHOWN: Final = 6


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Which ResNet, and how its last map becomes features."""

    depth: Literal[10, 18] = 10
    """Number of weighted layers."""
    cameras: tuple[str, ...] = ("head", "wrist")
    """Cameras it reads, all with the same weights."""
    image_size: int = 128
    """Side in px that every image is brought to; the last map is a 32nd of it."""
    projected: int = 16
    """Channels kept per cell of the last map."""

    def __post_init__(self) -> None:
        if self.image_size < 32 or self.image_size % 32:
            msg = f"resnet image_size={self.image_size}: a multiple of 32 is allowed"
            raise HilDaftError(msg)
        if not 1 <= self.projected <= 512:
            msg = f"resnet projected={self.projected}: 1 to 512 is allowed"
            raise HilDaftError(msg)


@final
class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample: nn.Module | None = None
        if stride != 1 or inside != outside:
            shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outside))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """One residual step."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(x + shortcut)


@final
class ResNet(nn.Module):
    """Everything of a ResNet before its average pooling."""

    def __init__(self, depth: Literal[10, 18]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        blocks, inside = (1 if depth == 10 else 2), 64
        for number, (outside, stride) in enumerate(_STAGES, 1):
            pairs = itertools.pairwise([inside, *[outside] * blocks])
            stage = [BasicBlock(a, b, stride if i == 0 else 1) for i, (a, b) in enumerate(pairs)]
            self.add_module(f"layer{number}", nn.Sequential(*stage))
            inside = outside

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 512 h2 w2"]:
        """The last map, from pixels standardised with ImageNet's mean and deviation."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for number in range(1, len(_STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x


@final
class ResNetEncoder(nn.Module):
    """A frozen ResNet as `ImageEncoder`: per camera the last map, cell by cell, `projected` numbers each."""

    projection: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.resnet = ResNet(config.depth)
        # Orthonormal columns: lengths in the map's space are kept as well as so few numbers can.
        normal = np.random.default_rng(config.depth).standard_normal((512, config.projected))
        projection = torch.from_numpy(np.linalg.qr(normal)[0]).float()
        self.register_buffer("projection", projection, persistent=False)
        for name, value in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)

    @property
    def dim(self) -> int:
        """Width of the feature vector."""
        cells = (self.config.image_size // 32) ** 2
        return len(self.config.cameras) * cells * self.config.projected

    @property
    def hash(self) -> str:
        """Content hash of the weights as they are now, of the projection and of the configuration."""
        record: dict[str, Any] = json.loads(json.dumps(asdict(self.config)))
        return content_hash(record, {**self.state_dict(), "projection": self.projection})

    def encode(self, images: Mapping[str, UInt8[Tensor, "b h w 3"]]) -> Float[Tensor, "b f"]:
        """Features of a batch of observations (RGB, 0-255); raises HilDaftError for a missing camera."""
        parts = [self._features(images, camera) for camera in self.config.cameras]
        return torch.cat(parts, 1)

    def _features(
        self, images: Mapping[str, UInt8[Tensor, "b h w 3"]], camera: str
    ) -> Float[Tensor, "b f"]:
        if camera not in images:
            got = ", ".join(sorted(images)) or "none"
            msg = f"camera {camera!r} is missing from the images ({got}): name it so at the robot"
            raise HilDaftError(msg)
        size = self.config.image_size
        x = images[camera].permute(0, 3, 1, 2).float() / 255.0
        if x.shape[2:] != (size, size):
            x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        cells = self.resnet((x - self.mean) / self.std).flatten(2).transpose(1, 2)
        return (cells @ self.projection).flatten(1)


def load_resnet(path: Path, config: ResNetConfig) -> ResNetEncoder:
    """A ResNet from a state dict with torchvision's names: .safetensors, or .pth read without running its pickle.

    The classifier (`fc`) is left out.

    Raises:
        HilDaftError: no such file, a damaged or hostile one, or entries that are missing, left over or of another
            shape (all named).
    """
    tensors = {
        name: value
        for name, value in read_state_dict(path).items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    encoder = ResNetEncoder(config)
    wanted = {
        name: value.shape
        for name, value in encoder.resnet.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    both = set(wanted) & set(tensors)
    kinds = {
        "missing": sorted(set(wanted) - both),
        "left over": sorted(set(tensors) - both),
        "of another shape": sorted(name for name in both if tensors[name].shape != wanted[name]),
    }
    told = [f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names]
    if told:
        msg = (
            f"weights file {path}: no ResNet-{config.depth} with torchvision's names "
            f"({'; '.join(told)}); name the right depth or file"
        )
        raise HilDaftError(msg)
    encoder.resnet.load_state_dict(tensors, strict=False)
    return encoder.requires_grad_(requires_grad=False).eval()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file; from the latter nothing but tensors is ever built.

    Raises HilDaftError where there is no such file, or where it holds anything else.
    """
    if not path.is_file():
        msg = f"weights file {path}: there is no such file; give a .safetensors or .pth file"
        raise HilDaftError(msg)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    # torch has no common type for what a damaged or hostile file raises; it is refused with its reason.
    except (SafetensorError, Exception) as error:
        reason = " ".join(str(error).split())[:160]
        msg = f"weights file {path}: damaged, or it holds more than tensors ({reason}); use another"
        raise HilDaftError(msg) from error
    entries = cast("dict[Any, Any]", content) if isinstance(content, dict) else {}
    tensors = {str(k): v for k, v in entries.items() if isinstance(v, Tensor)}
    if not tensors or len(tensors) != len(entries):
        msg = f"weights file {path}: a plain state dict of tensors is expected; export one"
        raise HilDaftError(msg)
    return tensors


def _listed(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
