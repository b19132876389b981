"""The trainer learns, resumes to the bit, and refuses damaged checkpoints; losses of the heads."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hildaft.models.octo_tiny import OctoTiny
from hildaft.pretraining.batches import Batch, Batches
from hildaft.pretraining.dataset import CAMERAS, KEY_POINTS
from hildaft.pretraining.decoder import DecoderConfig, train_decoder
from hildaft.pretraining.networks import (
    EncoderPretraining,
    OctoPretraining,
    cell_loss,
    grid_centres,
    position_loss,
)
from hildaft.pretraining.readout import ReadoutConfig, add_block, train_readout, word_sketch
from hildaft.pretraining.targets import TARGET_DIM
from hildaft.pretraining.trainer import Trainer, TrainerConfig
from hildaft.types import HilDaftError

SMALL = dict.fromkeys(CAMERAS, 128)
"""What the backbones read."""


class Line(nn.Module):
    """y = w x on the geometry targets' first number."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(1, 1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x = batch.geometry[:, :1]
        return {"geometry": (self.read(x) - 3 * x + 1).square().mean()}


class Numbers:
    """Batches of pure numbers."""

    def draw(self, step: int, size: int) -> Batch:
        return make_batch(size, np.random.default_rng(step), sides={})


def make_batch(size: int, rng: np.random.Generator, sides: Mapping[str, int] = CAMERAS) -> Batch:
    keys = (size, len(CAMERAS), len(KEY_POINTS))
    return Batch(
        pixels={
            c: torch.from_numpy(rng.uniform(-1, 1, (size, 3, s, s))).float()
            for c, s in sides.items()
        },
        geometry=torch.from_numpy(rng.normal(size=(size, TARGET_DIM))).float(),
        reading=torch.from_numpy(rng.normal(size=(size, TARGET_DIM))).float(),
        points=torch.from_numpy(rng.uniform(-0.9, 0.9, (*keys, 2))).float(),
        inside=torch.ones(keys, dtype=torch.bool),
        words=torch.from_numpy(rng.integers(0, 512, (size, 12))),
        word_mask=torch.arange(12).expand(size, -1) < 4,
        sketch=torch.from_numpy(rng.normal(size=(size, 16))).float(),
        action=torch.from_numpy(rng.uniform(-1, 1, (size, 7))).float(),
        has_action=torch.arange(size) % 2 == 0,
    )


CONFIG = TrainerConfig(
    steps=150, batch=2, learning_rate=0.1, warmup=5, log_every=50, checkpoint_every=60
)


def trained(folder, config=CONFIG) -> Line:
    torch.manual_seed(0)
    line = Line()
    Trainer(line, line, config, folder).run(Numbers())
    return line


def test_trainer_learns_and_logs(tmp_path):
    line = trained(tmp_path)
    assert line.read.weight.item() == pytest.approx(3.0, abs=0.1)
    assert line.read.bias.item() == pytest.approx(-1.0, abs=0.1)
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in lines] == [50, 100, 150]
    assert lines[-1]["geometry"] < 0.1 * lines[0]["geometry"]


def test_resuming_gives_the_same_weights(tmp_path):
    whole = trained(tmp_path / "whole")
    torch.manual_seed(0)
    line = Line()
    trainer = Trainer(line, line, CONFIG, tmp_path / "parts")
    source = Numbers()
    for _ in range(70):
        trainer._update(source.draw(trainer.step, CONFIG.batch))
        trainer.step += 1
    trainer.save()
    again = Line()
    resumed = Trainer(again, again, CONFIG, tmp_path / "parts")
    assert resumed.step == 70
    resumed.run(source)
    assert torch.equal(again.read.weight, whole.read.weight)
    assert torch.equal(again.read.bias, whole.read.bias)


def test_damaged_checkpoint_is_named(tmp_path):
    trained(tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(HilDaftError, match="unusable"):
        trained(tmp_path)


def test_rate_rises_then_falls():
    rates = [CONFIG.rate(step) for step in range(CONFIG.steps)]
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == pytest.approx(0.1)
    assert rates[-1] < 0.0022
    assert all(a >= b for a, b in itertools.pairwise(rates[5:]))


@pytest.mark.parametrize("change", [{"steps": 0}, {"batch": 0}, {"learning_rate": 0.0}])
def test_trainer_refuses(change):
    with pytest.raises(HilDaftError, match="is allowed"):
        TrainerConfig(**change)


def test_every_loss_reaches_what_it_should():
    batch = make_batch(2, np.random.default_rng(0), SMALL)
    network = OctoPretraining()
    losses = network.losses(batch)
    assert set(losses) == {"geometry", "skill", "sketch", "points", "cells"}
    losses["geometry"].backward(retain_graph=True)
    assert network.model.octo.stems["wrist"].convs[0].weight.grad is not None
    assert network.skill[0].weight.grad is None
    losses["sketch"].backward()
    assert network.model.words.weight.grad is not None
    batch = make_batch(2, np.random.default_rng(0))
    assert set(EncoderPretraining().losses(batch)) == {"geometry", "points", "cells"}


def test_cell_and_position_losses_by_hand():
    wanted = grid_centres(4, torch.zeros(1))[None, [6]]
    logits = torch.zeros(1, 1, 4, 4)
    seen = torch.ones(1, 1, dtype=torch.bool)
    assert float(cell_loss(logits, wanted, seen)) == pytest.approx(np.log(16))
    logits[0, 0, 1, 2] = 50.0
    assert float(cell_loss(logits, wanted, seen)) == pytest.approx(0.0, abs=1e-5)
    assert float(cell_loss(logits, wanted, ~seen)) == 0.0
    assert float(position_loss(wanted + 0.2, wanted, seen, 0.05)) == pytest.approx(0.2 - 0.025)


class OneBatch:
    """Stands where `Batches` does, over two frames."""

    def __init__(self, sides: Mapping[str, int]) -> None:
        self.batch = make_batch(2, np.random.default_rng(0), sides)

    def __len__(self) -> int:
        return 2

    def at(self, rows: np.ndarray, rng: np.random.Generator) -> Batch:
        assert rng is not None
        pixels = {name: image[rows] for name, image in self.batch.pixels.items()}
        rest = {
            f.name: getattr(self.batch, f.name)[rows] for f in fields(Batch) if f.name != "pixels"
        }
        return Batch(pixels=pixels, **rest)


def test_added_block_changes_nothing_until_it_is_trained():
    torch.manual_seed(0)
    network = OctoPretraining().eval()
    source = OneBatch(SMALL)
    grown = add_block(network).eval()
    with torch.inference_mode():
        before = network.geometry(source.batch)
        torch.testing.assert_close(grown.geometry(source.batch), before)
    first = grown.model.octo.blocks[0].out.weight.clone()
    config = ReadoutConfig(steps=200, batch=2, workers=1)
    train_readout(grown, source, config)
    with torch.inference_mode():
        after = grown.geometry(source.batch)
    target = source.batch.geometry
    assert (after - target).abs().mean() < 0.5 * (before - target).abs().mean()
    assert torch.equal(grown.model.octo.blocks[0].out.weight, first)


def test_word_sketch_is_linear_in_the_bag_of_words():
    model = OctoTiny()
    batch = make_batch(3, np.random.default_rng(0), sides={})
    swapped = replace(batch, words=batch.words[:, [1, 0, 2, 3, *range(4, 12)]])
    padded = replace(batch, words=torch.where(batch.word_mask, batch.words, 7))
    sketch = word_sketch(model, batch)
    torch.testing.assert_close(word_sketch(model, swapped), sketch)
    torch.testing.assert_close(word_sketch(model, padded), sketch)
    other = replace(batch, words=batch.words.roll(1, 0))
    assert (word_sketch(model, other) - sketch).abs().min(1).values.max() > 1e-3


def test_decoder_stage_leaves_the_trunk_alone():
    torch.manual_seed(0)
    network, source = EncoderPretraining().eval(), OneBatch(CAMERAS)
    trunk = {k: v.clone() for k, v in network.model.trunks.state_dict().items()}
    before = (network.geometry(source.batch) - source.batch.geometry).abs().mean().detach()
    train_decoder(network, source, DecoderConfig(steps=150, batch=2))
    after = (network.geometry(source.batch) - source.batch.geometry).abs().mean().detach()
    assert after < 0.8 * before
    assert all(torch.equal(v, trunk[k]) for k, v in network.model.trunks.state_dict().items())


class FewFrames:
    """Three frames in memory, as `Frames` gives them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        turns = np.linalg.qr(rng.normal(size=(3, 3, 3)))[0].astype(np.float32)
        self.labels = {
            "ee_position": rng.normal(size=(3, 3)).astype(np.float32),
            "ee_rotation": turns,
            "bolt_rotation": turns,
            "landmarks": rng.normal(size=(3, 6, 3)).astype(np.float32),
            "jaw_opening": np.zeros(3, np.float32),
            "jaw_closed": np.zeros(3, bool),
            "held": np.zeros(3, bool),
            "pixels": rng.random((3, 2, 6, 2)).astype(np.float32),
            "inside": np.ones((3, 2, 6), bool),
        }

    def __len__(self) -> int:
        return 3

    def images(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {
            c: np.full((len(rows), s, s, 3), 10, np.uint8)
            * rows[:, None, None, None].astype(np.uint8)
            for c, s in CAMERAS.items()
        }


def test_batches_are_fixed_by_seed_and_step():
    model = OctoTiny()
    one, two = (Batches(FewFrames(), model, 0, CAMERAS) for _ in range(2))
    first, same = one.draw(5, 2), two.draw(5, 2)
    assert torch.equal(first.words, same.words)
    assert torch.equal(first.geometry, same.geometry)
    other = Batches(FewFrames(), model, 1, CAMERAS).draw(5, 2)
    assert not torch.equal(first.words, other.words)
    seen = torch.cat([one.draw(step, 1).geometry for step in range(3)])
    assert len(seen.unique(dim=0)) == 3


class Brightness:
    """An image encoder of two numbers per frame."""

    dim, hash = 2, ""

    def encode(self, images: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([images[name].float().mean((1, 2, 3)) for name in CAMERAS], 1)


def test_every_frame_comes_with_what_was_read_off_it():
    batches = Batches(FewFrames(), OctoTiny(), 0, SMALL, Brightness())
    rows = np.array([2, 0])
    read = batches.at(rows, np.random.default_rng(0)).reading
    assert torch.equal(read, torch.tensor([[20.0, 20.0], [0.0, 0.0]]))
    untold = Batches(FewFrames(), OctoTiny(), 0, SMALL).at(rows, np.random.default_rng(0))
    assert untold.reading.shape == (2, 0)


def test_instructions_are_skills_or_random_words():
    batches = Batches(FewFrames(), OctoTiny(), 0, SMALL)
    batch = batches.at(np.zeros(400, np.int64), np.random.default_rng(0))
    share = float(batch.has_action.float().mean())
    assert 0.4 < share < 0.6
    assert batch.word_mask.any(1).all()
    # Equal words give an equal sketch, whatever else differs.
    rows = [tuple(w[m].tolist()) for w, m in zip(batch.words, batch.word_mask, strict=True)]
    index = {row: i for i, row in enumerate(rows)}
    for i, row in enumerate(rows):
        torch.testing.assert_close(batch.sketch[i], batch.sketch[index[row]])
    assert float(batch.sketch.square().mean()) == pytest.approx(1.0, abs=0.5)
