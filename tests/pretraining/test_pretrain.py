"""Pretraining as a whole, in little: from nothing, then on from the weights it wrote."""

import pytest
import torch

from hildaft.models.backbone import load_weights
from hildaft.models.encoders import load_image_encoder
from hildaft.models.octo_tiny import OctoTinyBackbone, load_octo_network
from hildaft.models.smol import load_smol_tiny
from hildaft.pretraining.dataset import DatasetConfig
from hildaft.pretraining.decoder import DecoderConfig
from hildaft.pretraining.pretrain import PretrainConfig, pretrain
from hildaft.pretraining.readout import ReadoutConfig
from hildaft.pretraining.trainer import TrainerConfig
from hildaft.types import HilDaftError

FRAMES = DatasetConfig(frames=100, held_out=200, shard_frames=100, workers=2)
FILES = ("octo_tiny", "smol_tiny", "image_encoder")


def in_little(cache, output, start=None, rate=1e-3, later_steps=2) -> PretrainConfig:
    trainer = TrainerConfig(steps=2, batch=2, warmup=0, weight_decay=0.0, learning_rate=rate)
    return PretrainConfig(
        cache=cache,
        output=output,
        start=start,
        dataset=FRAMES,
        octo=trainer,
        readout=ReadoutConfig(steps=later_steps, batch=2),
        smol=trainer,
        encoder=trainer,
        decoder=DecoderConfig(steps=later_steps, batch=2),
    )


def check_that_they_belong_together(folder):
    network = load_octo_network(folder / "octo_tiny.safetensors")
    OctoTinyBackbone(network, load_image_encoder(folder / "image_encoder.safetensors"))


def test_pretraining_writes_weights_and_goes_on_from_them(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    report = pretrain(in_little(tmp_path / "cache", first))
    assert report.keys() == set(FILES)
    assert load_octo_network(first / "octo_tiny.safetensors").config.layers == 3
    load_smol_tiny(first / "smol_tiny.safetensors")
    check_that_they_belong_together(first)
    assert report["image_encoder"]["probe"]["tail from TCP, < 30 mm"]["frames"] > 20

    # The frames stay; checkpoints of the first run would be gone on from instead.
    for name in FILES:
        (tmp_path / "cache" / name).rename(tmp_path / f"checkpoints-{name}")
    again = in_little(tmp_path / "cache", second, start=first, rate=1e-9, later_steps=0)
    pretrain(again)
    check_that_they_belong_together(second)
    for name in FILES:
        before, old, _ = load_weights(first / f"{name}.safetensors")
        after, new, _ = load_weights(second / f"{name}.safetensors")
        assert before | {"reader": ""} == after | {"reader": ""}
        assert old.keys() == new.keys()
        assert all(torch.allclose(old[key], new[key], atol=1e-6) for key in old)
        assert any(not torch.equal(old[key], new[key]) for key in old)


def test_counts_are_whole_shards():
    with pytest.raises(HilDaftError, match=r"frames=1500: a multiple of shard_frames=1000"):
        DatasetConfig(frames=1500)
    with pytest.raises(HilDaftError, match=r"shard_frames=0: 1 or more"):
        DatasetConfig(shard_frames=0)


@pytest.mark.parametrize("name", ["jitter_share", "bench_share"])
def test_shares_are_checked(name):
    with pytest.raises(HilDaftError, match=rf"{name}=1.5: 0 to 1"):
        DatasetConfig(**{name: 1.5})


def test_folders_are_checked_before_anything_is_rendered(tmp_path):
    with pytest.raises(HilDaftError, match=r"octo_tiny\.safetensors: missing"):
        pretrain(in_little(tmp_path / "cache", tmp_path / "out", start=tmp_path / "nothing"))
    (tmp_path / "file").touch()
    with pytest.raises(HilDaftError, match="cannot be made"):
        pretrain(in_little(tmp_path / "cache", tmp_path / "file" / "out"))
    assert not (tmp_path / "cache").exists()
