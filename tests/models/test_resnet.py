import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from hildaft.models.backbone import ImageEncoder
from hildaft.models.resnet import IMAGENET_MEAN, IMAGENET_STD, ResNet, ResNetConfig, load_resnet
from hildaft.types import HilDaftError


def torchvision_names(depth: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's resnet18 (resnet10: one block per stage), written out by rule."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)

    norm("bn1", 64)
    inside = 64
    for stage, outside in enumerate((64, 128, 256, 512), 1):
        for block in range(1 if depth == 10 else 2):
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv1.weight"] = (outside, inside, 3, 3)
            shapes[f"{name}.conv2.weight"] = (outside, outside, 3, 3)
            norm(f"{name}.bn1", outside)
            norm(f"{name}.bn2", outside)
            if block == 0 and stage > 1:
                shapes[f"{name}.downsample.0.weight"] = (outside, inside, 1, 1)
                norm(f"{name}.downsample.1", outside)
            inside = outside
    return shapes


def random_weights(depth: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in torchvision_names(depth).items():
        value = torch.randn(shape, generator=generator)
        fan = value[0].numel() if value.ndim > 1 else 4
        weights[name] = value * (2 / fan) ** 0.5
        if name.endswith(("running_var", "bn1.weight", "bn2.weight", "downsample.1.weight")):
            weights[name] = value.abs() + 0.5
    return weights


def reference(weights: dict[str, Tensor], x: Tensor, depth: int) -> Tensor:
    """The paper's network by hand: convolution, batch norm from its statistics, ReLU, shortcut."""

    def norm(name: str, x: Tensor) -> Tensor:
        get = lambda part: weights[f"{name}.{part}"][:, None, None]  # noqa: E731
        scaled = (x - get("running_mean")) / (get("running_var") + 1e-5).sqrt()
        return scaled * get("weight") + get("bias")

    x = F.conv2d(x, weights["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(norm("bn1", x)), 3, 2, 1)
    for stage in range(1, 5):
        for block in range(1 if depth == 10 else 2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = F.conv2d(F.relu(norm(f"{name}.bn1", y)), weights[f"{name}.conv2.weight"], padding=1)
            if f"{name}.downsample.0.weight" in weights:
                x = F.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=stride)
                x = norm(f"{name}.downsample.1", x)
            x = F.relu(x + norm(f"{name}.bn2", y))
    return x


def images(size: int = 128) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        n: torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8) for n in ("head", "wrist")
    }


@pytest.mark.parametrize(("depth", "parameters"), [(10, 4_905_792), (18, 11_176_512)])
def test_names_shapes_and_size_are_torchvision_s(depth, parameters):
    net = ResNet(depth)
    kept = {n: tuple(v.shape) for n, v in net.state_dict().items() if "num_batches" not in n}
    assert kept == torchvision_names(depth)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize(("depth", "suffix"), [(10, "safetensors"), (18, "pth")])
def test_loaded_weights_give_the_network_s_features(tmp_path, depth, suffix):
    weights, path = random_weights(depth), tmp_path / f"resnet.{suffix}"
    full = {**weights, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    full["bn1.num_batches_tracked"] = torch.tensor(7)
    (save_file if suffix == "safetensors" else torch.save)(full, path)
    encoder = load_resnet(path, ResNetConfig(depth=depth))
    assert isinstance(encoder, ImageEncoder)
    found = encoder.encode(images())
    assert found.shape == (2, encoder.dim) == (2, 2 * 16 * 16)
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (images()["wrist"].permute(0, 3, 1, 2) / 255 - mean) / std
    cells = reference(weights, pixels, depth).flatten(2).transpose(1, 2)
    expected = (cells @ encoder.projection).flatten(1)
    atol = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(found[:, 256:], expected, atol=atol, rtol=0)
    assert not any(p.requires_grad for p in encoder.parameters())


def test_hash_names_the_weights_and_the_configuration(tmp_path):
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(random_weights(10), path)
    save_file(random_weights(10, seed=1), other)
    hashes = [
        load_resnet(path, ResNetConfig()).hash,
        load_resnet(path, ResNetConfig()).hash,
        load_resnet(other, ResNetConfig()).hash,
        load_resnet(path, ResNetConfig(projected=8)).hash,
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_where_things_are_stays_in_the_features(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(random_weights(10), path)
    encoder = load_resnet(path, ResNetConfig(cameras=("head",)))
    blank = torch.full((1, 128, 128, 3), 128, dtype=torch.uint8)
    left, right = blank.clone(), blank.clone()
    left[:, 40:60, 10:30] = 255
    right[:, 40:60, 90:110] = 255
    apart = (encoder.encode({"head": left}) - encoder.encode({"head": right})).norm()
    assert apart > 0.1 * (encoder.encode({"head": left}) - encoder.encode({"head": blank})).norm()
    big = F.interpolate(left.permute(0, 3, 1, 2).float(), scale_factor=2.0).to(torch.uint8)
    same = encoder.encode({"head": big.permute(0, 2, 3, 1)})
    assert (same - encoder.encode({"head": left})).norm() < 0.2 * apart
    with pytest.raises(HilDaftError, match="'head' is missing"):
        encoder.encode({"wrist": left})


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was executed')",))


def test_foreign_and_hostile_files_are_refused(tmp_path):
    with pytest.raises(HilDaftError, match="no such file"):
        load_resnet(tmp_path / "none.pth", ResNetConfig())
    path = tmp_path / "resnet18.safetensors"
    weights = random_weights(18)
    del weights["conv1.weight"]
    weights["layer1.0.conv1.weight"] = torch.zeros(1)
    weights["extra"] = torch.zeros(1)
    save_file(weights, path)
    with pytest.raises(HilDaftError) as caught:
        load_resnet(path, ResNetConfig(depth=18))
    for told in ("missing: conv1.weight", "left over: extra", "shape: layer1.0.conv1.weight"):
        assert told in str(caught.value)
    with pytest.raises(HilDaftError, match="no ResNet-10"):
        load_resnet(path, ResNetConfig(depth=10))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(HilDaftError, match="damaged"):
        load_resnet(path, ResNetConfig())
    for name, data in (("a.pth", pickle.dumps(Hostile())), ("b.pth", b"junk")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(HilDaftError, match="damaged, or it holds more"):
            load_resnet(tmp_path / name, ResNetConfig())
    torch.save({"w": Hostile()}, tmp_path / "c.pth")
    with pytest.raises(HilDaftError, match="damaged, or it holds more"):
        load_resnet(Path(tmp_path / "c.pth"), ResNetConfig())
    torch.save({"epoch": 3}, tmp_path / "d.pth")
    with pytest.raises(HilDaftError, match="plain state dict"):
        load_resnet(tmp_path / "d.pth", ResNetConfig())


@pytest.mark.parametrize("change", [{"image_size": 100}, {"projected": 0}])
def test_config_refuses(change):
    with pytest.raises(HilDaftError, match="is allowed"):
        ResNetConfig(**change)
