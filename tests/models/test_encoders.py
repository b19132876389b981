"""The image encoder and the embedding table of the refinement commands."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hildaft.models.backbone import camera_image, save_weights
from hildaft.models.encoders import (
    ImageEncoderConfig,
    KeyPointEncoder,
    UnreadKeyPoints,
    embed_phrases,
    load_image_encoder,
    phrases_hash,
    soft_argmax,
)
from hildaft.types import HilDaftError

WORDS = ("negative", "positive", "x", "y", "z", "direction")
phrases = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)


def images(batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 128, 128, 3)
    return {
        name: torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        for name in ("head", "wrist")
    }


def test_features_are_read_from_the_decoder_and_the_named_points():
    model = KeyPointEncoder().eval()
    with torch.inference_mode():
        features = model.encode(images())
        pixels = {n: camera_image(images(), n, side) for n, side in model.config.cameras}
        trunk, points = model.trunk(pixels)
        named = model.named(points)
        weight, bias = model.reading.weight, model.reading.bias
        width = model.config.hidden
        expected = model.decoder(trunk) @ weight[:, :width].T + named @ weight[:, width:].T + bias
    count = model.config.named_points
    assert features.shape == (2, model.dim)
    torch.testing.assert_close(named[:, : 2 * count], points["head"].position[:, :count].flatten(1))
    torch.testing.assert_close(features, expected)


def test_unread_features_are_what_the_geometry_is_read_from():
    model = KeyPointEncoder().eval()
    unread, count, points = UnreadKeyPoints(model), model.config.named_points, model.config.points
    assert unread.hash not in {model.hash, UnreadKeyPoints(KeyPointEncoder()).hash}
    with torch.inference_mode():
        features = unread.encode(images())
        assert features.shape == (2, unread.dim)
        units, seen = features.split([model.config.hidden, unread.dim - model.config.hidden], 1)
        seen = seen.view(2, len(model.config.cameras), points, 3)[:, :, :count]
        named = [torch.cat([s[..., :2].flatten(1), s[..., 2]], 1) for s in seen.unbind(1)]
        read = model.reading(torch.cat([units, *named], 1))
        torch.testing.assert_close(read, model.encode(images()))


@given(column=st.integers(0, 7), row=st.integers(0, 7))
def test_soft_argmax_finds_a_sharp_peak(column, row):
    logits = torch.zeros(1, 1, 8, 8)
    logits[0, 0, row, column] = 60.0
    found = soft_argmax(logits)
    expected = torch.tensor([(column + 0.5) / 4 - 1, (row + 0.5) / 4 - 1])
    torch.testing.assert_close(found.position[0, 0], expected, atol=1e-5, rtol=0)
    assert float(found.sharpness) == pytest.approx(1.0, abs=1e-5)


def test_flat_map_is_central_and_blunt():
    found = soft_argmax(torch.zeros(1, 1, 8, 8))
    torch.testing.assert_close(found.position, torch.zeros(1, 1, 2), atol=1e-6, rtol=0)
    assert float(found.sharpness) == pytest.approx(1 / 64)


def test_the_newest_images_are_read_once():
    model, seen = KeyPointEncoder().eval(), images()
    with torch.inference_mode():
        first, looked = model.encode(seen), model.look(seen)
        UnreadKeyPoints(model).encode(seen)
        assert model.look(seen) is looked
        assert torch.equal(model.encode(seen), first)
        other = images()
        other["head"] = 255 - other["head"]
        assert not torch.equal(model.encode(other), first)
        torch.testing.assert_close(model.encode(seen), first)


def test_hash_follows_weights_and_survives_the_file(tmp_path):
    model, path = KeyPointEncoder(), tmp_path / "image_encoder.safetensors"
    before = model.hash
    with torch.no_grad():
        model.decoder[0].bias += 1e-3
    assert model.hash != before
    save_weights(path, model.config_record(), model.state_dict(), {"seed": 0})
    loaded = load_image_encoder(path)
    assert loaded.hash == model.hash
    torch.testing.assert_close(loaded.encode(images()), model.encode(images()).detach())
    save_weights(path, {"points": 1}, {"x": torch.zeros(1)}, {})
    with pytest.raises(HilDaftError, match="not weights of the image encoder"):
        load_image_encoder(path)
    with pytest.raises(HilDaftError, match="missing"):
        load_image_encoder(tmp_path / "other.safetensors")


def test_config_refuses():
    with pytest.raises(HilDaftError, match="named_points=30"):
        ImageEncoderConfig(named_points=30)
    with pytest.raises(HilDaftError, match="cameras"):
        ImageEncoderConfig(cameras=())
    with pytest.raises(HilDaftError, match="head at 64 px"):
        ImageEncoderConfig(cameras=(("head", 64),))


@given(first=phrases, second=phrases)
def test_phrases_differ_exactly_when_their_words_do(first, second):
    one, two = embed_phrases([first, second])
    assert float(one.norm()) == pytest.approx(1.0, abs=1e-5)
    assert (first == second) == bool(torch.allclose(one, two, atol=1e-4))


def test_phrase_table_is_fixed_and_hashed():
    table = embed_phrases(["negative x direction", "[null]"])
    assert table.shape == (2, 64)
    torch.testing.assert_close(table, embed_phrases(["Negative X direction", "null"]))
    # Guards the table against drift: stored episodes carry indices into it, checkpoints weights for it.
    assert float(table[0, 0]) == pytest.approx(TABLE_CORNER, abs=1e-6)
    assert phrases_hash(["a", "b"]) != phrases_hash(["b", "a"])
    assert math.isclose(float(table[0] @ table[0]), 1.0, abs_tol=1e-5)
    with pytest.raises(HilDaftError, match="at least one word"):
        embed_phrases(["..."])


TABLE_CORNER = 0.03773249313235283
"""First number of "negative x direction"."""
