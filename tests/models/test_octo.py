"""Octo: golden vectors of the original, the block-causal rule, and octo-tiny as a backbone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hildaft.models.backbone import FrozenEncoders, load_weights, save_weights, to_side
from hildaft.models.encoders import KeyPointEncoder
from hildaft.models.octo import Octo, OctoConfig
from hildaft.models.octo_layers import attention_bias, attention_rule
from hildaft.models.octo_tiny import OCTO_TINY, OctoTiny, OctoTinyBackbone, load_octo_network
from hildaft.types import HilDaftError, Observation

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "octo_tiny_random.npz"
PREFIX = "params/octo_transformer/"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    if not GOLDEN.is_file():
        pytest.skip("the golden vectors of the original Octo lie beside the checkout, not here")
    with np.load(GOLDEN) as file:
        return dict(file)


def golden_octo(golden: dict[str, np.ndarray], **changes: bool) -> Octo:
    stored = json.loads(str(golden["config/json"]))
    config = OctoConfig(
        stem_channels=tuple(stored["stem_features"]),
        stem_dim=stored["stem_num_features"],
        language_dim=stored["t5"]["d_model"],
        max_horizon=stored["max_horizon"],
        width=stored["token_embedding_size"],
        layers=stored["num_layers"],
        heads=stored["num_attention_heads"],
        mlp_dim=stored["mlp_dim"],
        **changes,
    )
    model = Octo(config)
    model.load_state_dict(golden_weights(golden, config))
    return model.eval()


def golden_weights(golden: dict[str, np.ndarray], config: OctoConfig) -> dict[str, Tensor]:
    def get(name: str) -> Tensor:
        return torch.from_numpy(golden[PREFIX + name].copy())

    def dense(ours: str, theirs: str) -> dict[str, Tensor]:
        return {f"{ours}.weight": get(f"{theirs}/kernel").T, f"{ours}.bias": get(f"{theirs}/bias")}

    def norm(ours: str, theirs: str) -> dict[str, Tensor]:
        return {f"{ours}.weight": get(f"{theirs}/scale"), f"{ours}.bias": get(f"{theirs}/bias")}

    weights = {
        "language_positions": get("task_language_pos_embedding")[0],
        "readout_positions": get("readout_action_pos_embedding")[0],
        **dense("language_projection", "task_language_projection"),
        **norm("norm", "BlockTransformer_0/Transformer_0/encoder_norm"),
    }
    for camera, _ in config.cameras:
        stem = f"observation_tokenizers_{camera}/SmallStem16_0"
        for i in range(4):
            ours = f"stems.{camera}.convs.{i}"
            weights[f"{ours}.weight"] = get(f"{stem}/StdConv_{i}/kernel").permute(3, 2, 0, 1)
            weights[f"{ours}.bias"] = get(f"{stem}/StdConv_{i}/bias")
            weights |= norm(f"stems.{camera}.norms.{i}", f"{stem}/GroupNorm_{i}")
        ours = f"stems.{camera}.embedding"
        weights[f"{ours}.weight"] = get(f"{stem}/embedding/kernel").permute(3, 2, 0, 1)
        weights[f"{ours}.bias"] = get(f"{stem}/embedding/bias")
        weights |= dense(f"projections.{camera}", f"obs_{camera}_projection")
        weights[f"positions.{camera}"] = get(f"obs_{camera}_pos_embedding")[0]
    for i in range(config.layers):
        theirs, ours = f"BlockTransformer_0/Transformer_0/encoderblock_{i}", f"blocks.{i}"
        attention = f"{theirs}/MultiHeadDotProductAttention_0"
        parts = [get(f"{attention}/{n}/kernel").flatten(1).T for n in ("query", "key", "value")]
        weights[f"{ours}.query_key_value.weight"] = torch.cat(parts)
        parts = [get(f"{attention}/{n}/bias").flatten() for n in ("query", "key", "value")]
        weights[f"{ours}.query_key_value.bias"] = torch.cat(parts)
        weights[f"{ours}.out.weight"] = get(f"{attention}/out/kernel").flatten(0, 1).T
        weights[f"{ours}.out.bias"] = get(f"{attention}/out/bias")
        weights |= norm(f"{ours}.attention_norm", f"{theirs}/LayerNorm_0")
        weights |= norm(f"{ours}.mlp_norm", f"{theirs}/LayerNorm_1")
        weights |= dense(f"{ours}.mlp_in", f"{theirs}/MlpBlock_0/Dense_0")
        weights |= dense(f"{ours}.mlp_out", f"{theirs}/MlpBlock_0/Dense_1")
    return weights


def golden_inputs(
    golden: dict[str, np.ndarray], case: str, dtype: torch.dtype
) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    steps = torch.from_numpy(golden[f"case/{case}/timestep_pad_mask"])
    window = steps.shape[1]
    images: dict[str, Tensor] = {}
    for camera in ("primary", "wrist"):
        image = torch.from_numpy(golden[f"input/image_{camera}"])[:, -window:]
        goal = torch.from_numpy(golden[f"input/goal_image_{camera}"])[:, None].expand_as(image)
        if case != "goal":
            goal = torch.zeros_like(image)
        both = torch.cat([image, goal], -1).permute(0, 1, 4, 2, 3)
        images[camera] = both.to(dtype) / 127.5 - 1
    language = torch.from_numpy(golden["case/text/inter/t5_last_hidden_state"]).to(dtype)
    mask = torch.from_numpy(golden[f"case/{case}/mask/task_language"])
    return images, language, mask, steps


@pytest.mark.parametrize("case", ["text", "pad_first", "window1", "goal", "v1_style"])
@pytest.mark.parametrize(
    ("dtype", "key", "tolerance"),
    [(torch.float32, "tokens", 1e-4), (torch.float64, "tokens64", 1e-7)],
)
def test_readout_matches_the_original(golden, case, dtype, key, tolerance):
    new = case != "v1_style"
    model = golden_octo(golden, repeat_language=new, correct_attention=new).to(dtype)
    with torch.inference_mode():
        tokens = model(*golden_inputs(golden, case, dtype))
    expected = torch.from_numpy(golden[f"case/{case}/{key}/readout_action"])
    torch.testing.assert_close(tokens.readout, expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(tokens.h, expected[:, -1].mean(1), atol=tolerance, rtol=0)


def test_every_token_group_matches_the_original(golden):
    with torch.inference_mode():
        tokens = golden_octo(golden)(*golden_inputs(golden, "text", torch.float32))
    for camera in ("primary", "wrist"):
        expected = torch.from_numpy(golden[f"case/text/tokens/obs_{camera}"])
        torch.testing.assert_close(tokens.cameras[camera], expected, atol=1e-4, rtol=0)
    expected = torch.from_numpy(golden["case/text/tokens/task_language"])
    torch.testing.assert_close(tokens.language, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", ["text", "pad_first", "window1", "goal", "v1_style"])
def test_attention_mask_matches_the_original(golden, case):
    new = case != "v1_style"
    model = golden_octo(golden, repeat_language=new, correct_attention=new)
    length = int(golden[f"case/{case}/attention_mask_len"])
    packed = golden[f"case/{case}/attention_mask"]
    expected = np.unpackbits(packed, axis=-1)[..., :length].astype(bool)
    _, language, mask, steps = golden_inputs(golden, case, torch.float32)
    groups = ["obs_primary", "obs_wrist"] + (["obs_task_language"] if new else [])
    parts = [torch.from_numpy(golden[f"case/{case}/mask/{name}"]) for name in groups]
    valid = torch.cat([*parts, steps.new_ones(*steps.shape, 1)], 2).flatten(1)
    keys = torch.cat([mask, valid], 1)
    sizes = [("obs_primary", 256), ("obs_wrist", 64), ("obs_language", 16), ("readout", 1)]
    rule = attention_rule(
        tuple(size for size in sizes if new or size[0] != "obs_language"),
        steps.shape[1],
        language.shape[1],
        correct=model.config.correct_attention,
    )
    bias = attention_bias(rule, keys, torch.float32)
    np.testing.assert_array_equal((bias == 0).numpy(), expected)


SMALL = OctoConfig(
    cameras=(("head", 32), ("wrist", 16)),
    stem_channels=(8, 8, 8, 8),
    stem_groups=4,
    stem_dim=8,
    goal_images=False,
    language_tokens=4,
    language_dim=8,
    repeat_language=False,
    max_horizon=3,
    width=8,
    layers=2,
    heads=2,
    mlp_dim=16,
)


def small_inputs(window: int) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    images = {name: torch.rand(2, window, 3, s, s) * 2 - 1 for name, s in SMALL.cameras}
    language = torch.randn(2, 3, 8)
    return images, language, torch.ones(2, 3).bool(), torch.ones(2, window).bool()


def test_observation_tokens_cannot_see_the_readout_or_the_future():
    model = Octo(SMALL).eval()
    images, language, mask, steps = small_inputs(3)
    with torch.inference_mode():
        before = model(images, language, mask, steps)
        # Random, because LayerNorm does not notice a constant.
        model.readout_positions += torch.randn_like(model.readout_positions)
        after = model(images, language, mask, steps)
        torch.testing.assert_close(after.cameras["head"], before.cameras["head"])
        torch.testing.assert_close(after.language, before.language)
        assert (after.readout - before.readout).abs().max() > 1e-3
        images["head"][:, 2] += 0.5
        later = model(images, language, mask, steps)
    torch.testing.assert_close(later.cameras["wrist"][:, :2], after.cameras["wrist"][:, :2])
    torch.testing.assert_close(later.readout[:, :2], after.readout[:, :2])
    assert (later.readout[:, 2] - after.readout[:, 2]).abs().max() > 1e-4


@pytest.mark.parametrize("readouts", [1, 2])
def test_embedding_alone_equals_the_full_pass(readouts):
    model = Octo(replace(SMALL, readouts=readouts)).eval()
    images, language, mask, steps = small_inputs(3)
    steps[0, 0], mask[1, 2] = False, False
    with torch.inference_mode():
        full = model(images, language, mask, steps).h
        torch.testing.assert_close(model.embed(images, language, mask, steps), full)


def test_padding_is_not_looked_at():
    model = Octo(SMALL).eval()
    images, language, mask, steps = small_inputs(2)
    mask[:, 2], steps[:, 0] = False, False
    with torch.inference_mode():
        before = model(images, language, mask, steps).h
        language[:, 2] += 3.0
        images["head"][:, 0] += 0.5
        after = model(images, language, mask, steps).h
    torch.testing.assert_close(after, before)
    assert after.isfinite().all()


@pytest.mark.parametrize(
    "change",
    [{"cameras": (("head", 100),)}, {"stem_groups": 3}, {"heads": 5}, {"layers": 0}],
)
def test_config_refuses(change):
    with pytest.raises(HilDaftError, match="is allowed"):
        OctoConfig(**change)


def images(seed: int = 0, batch: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 128, 128, 3)
    return {
        name: torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        for name in ("head", "wrist")
    }


def tiny() -> tuple[OctoTiny, KeyPointEncoder]:
    torch.manual_seed(0)
    reader = KeyPointEncoder().requires_grad_(requires_grad=False).eval()
    return OctoTiny(reader=reader.hash).requires_grad_(requires_grad=False).eval(), reader


def test_instruction_and_images_both_reach_h():
    model = OctoTinyBackbone(*tiny())
    with torch.inference_mode():
        first = model.encode(images(), model.embed_instruction("lift the bolt"))
        same = model.encode(images(), model.embed_instruction("Lift, the BOLT!"))
        other = model.encode(images(), model.embed_instruction("push the bolt"))
        seen = model.encode(images(1), model.embed_instruction("lift the bolt"))
    assert first.shape == (2, model.dim)
    torch.testing.assert_close(same, first)
    assert (other - first).abs().max() > 1e-3
    assert (seen - first).abs().max() > 1e-3


def test_padded_and_single_instructions_agree():
    model, reader = tiny()
    backbone = OctoTinyBackbone(model, reader)
    pixels = {
        name: image.permute(0, 3, 1, 2).float() / 127.5 - 1 for name, image in images().items()
    }
    words = torch.zeros(2, 12, dtype=torch.long)
    words[:, :3] = model.words.ids("lift the bolt")
    mask = torch.arange(12).expand(2, -1) < 3
    with torch.inference_mode():
        reading = reader.encode(images())
        padded = model.tokens(pixels, model.words(words), mask, reading).h
        single = backbone.encode(images(), backbone.embed_instruction("lift the bolt"))
        other = model.tokens(pixels, model.words(words), mask, reading + 1.0).h
    torch.testing.assert_close(padded, single, atol=1e-5, rtol=0)
    assert (other - padded).abs().max() > 1e-3


def test_a_vector_that_is_left_out_leaves_the_sequence():
    model = Octo(replace(SMALL, vectors=(("pose", 5),))).eval()
    images, language, mask, steps = small_inputs(3)
    pose = {"pose": torch.randn(2, 3, 5)}
    plain = Octo(SMALL).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "vector" not in k})
    with torch.inference_mode():
        h = model(images, language, mask, steps, vectors=pose).h
        torch.testing.assert_close(model.embed(images, language, mask, steps, pose), h)
        without = model(images, language, mask, steps).h
        torch.testing.assert_close(plain(images, language, mask, steps).h, without)
        pose["pose"][:, 0] += 1.0
        steps[:, 0] = False
        hidden = model(images, language, mask, steps, vectors=pose).h
        pose["pose"][:, 0] -= 1.0
        torch.testing.assert_close(model.embed(images, language, mask, steps, pose), hidden)
    assert (h - without).abs().max() > 1e-4


def test_bad_images_and_words_are_named():
    model = OctoTinyBackbone(*tiny())
    instruction = model.embed_instruction("lift")
    with pytest.raises(HilDaftError, match="'wrist' is missing"):
        model.encode({"head": images()["head"]}, instruction)
    with pytest.raises(HilDaftError, match="96x96"):
        model.encode({name: x[:, :96, :96] for name, x in images().items()}, instruction)
    with pytest.raises(HilDaftError, match="at least one word"):
        model.embed_instruction(" ?! ")


def test_hash_follows_weights_and_survives_the_file(tmp_path):
    (model, reader), path = tiny(), tmp_path / "octo_tiny.safetensors"
    before = model.hash
    with torch.no_grad():
        model.octo.readout_positions[0, 0, 0] += 1e-3
    assert model.hash != before
    save_weights(path, model.config_record(), model.state_dict(), {"seed": 0})
    network = load_octo_network(path)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    loaded, given = OctoTinyBackbone(network, reader), OctoTinyBackbone(model, reader)
    assert loaded.hash == given.hash == load_weights(path)[2]
    instruction = given.embed_instruction("lift")
    torch.testing.assert_close(
        loaded.encode(images(), instruction), given.encode(images(), instruction)
    )


def test_a_foreign_image_encoder_is_refused():
    model, _ = tiny()
    other = KeyPointEncoder()
    with pytest.raises(HilDaftError, match="pretrained together"):
        OctoTinyBackbone(model, other)
    assert OctoTiny(OCTO_TINY, other.hash).hash != OctoTiny(OCTO_TINY, model.reader).hash


def test_unusable_weight_files_are_named(tmp_path):
    model, path = OctoTiny(), tmp_path / "octo_tiny.safetensors"
    with pytest.raises(HilDaftError, match="missing"):
        load_octo_network(path)
    save_weights(path, model.config_record(), model.state_dict(), {})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HilDaftError, match="damaged"):
        load_octo_network(path)
    path.write_bytes(whole[:-4] + b"\x01\x02\x03\x04")
    with pytest.raises(HilDaftError, match="content hash"):
        load_octo_network(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(HilDaftError, match="damaged"):
        load_octo_network(path)
    save_weights(path, {"width": 8}, {"x": torch.zeros(1)}, {})
    with pytest.raises(HilDaftError, match="not weights of octo-tiny"):
        load_octo_network(path)


def observation() -> Observation:
    rng = np.random.default_rng(0)
    return Observation(
        images={
            "head": rng.integers(0, 256, (256, 256, 3), dtype=np.uint8),
            "wrist": rng.integers(0, 256, (128, 128, 3), dtype=np.uint8),
        },
        proprio=np.array([0.5, 1.0], np.float32),
    )


def test_frozen_encoders_encode_an_observation():
    model, encoder = tiny()
    backbone = OctoTinyBackbone(model, encoder)
    frozen = FrozenEncoders(backbone, encoder, {"a": "lift the bolt", "b": "push the bolt"})
    one, two = frozen.encode(observation(), "a"), frozen.encode(observation(), "b")
    assert one.h.shape == (frozen.h_dim,)
    assert one.features.shape == (frozen.feature_dim,)
    np.testing.assert_array_equal(one.proprio, observation().proprio)
    np.testing.assert_array_equal(one.features, two.features)
    assert np.abs(one.h - two.h).max() > 1e-3
    with pytest.raises(HilDaftError, match="task='c'"):
        frozen.encode(observation(), "c")
    with pytest.raises(HilDaftError, match="missing"):
        frozen.encode(Observation(images={}, proprio=observation().proprio), "a")


def test_hash_of_frozen_encoders_covers_both_networks_and_the_words():
    model, encoder = tiny()
    backbone = OctoTinyBackbone(model, encoder)
    hashes = {FrozenEncoders(backbone, encoder, {"a": "lift"}).hash}
    hashes.add(FrozenEncoders(backbone, encoder, {"a": "push"}).hash)
    with torch.no_grad():
        next(encoder.parameters()).add_(1e-3)
    hashes.add(FrozenEncoders(backbone, encoder, {"a": "lift"}).hash)
    assert len(hashes) == 3


def test_images_are_brought_to_the_side_a_network_takes():
    image = torch.zeros(1, 256, 256, 3, dtype=torch.uint8)
    image[0, :2, :2, 0] = torch.tensor([[10, 20], [30, 41]])
    small = to_side(image, 128)
    assert small is not None
    assert small.shape == (1, 128, 128, 3)
    assert small[0, 0, 0, 0] == 25
    assert torch.equal(to_side(small, 128), small)
    doubled = to_side(small, 256)
    assert doubled is not None
    assert doubled[0, :3, :3, 0].tolist() == [[25, 25, 0], [25, 25, 0], [0, 0, 0]]
    assert to_side(image[:, :200, :200], 128) is None
