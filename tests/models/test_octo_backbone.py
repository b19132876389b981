import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from octo_folder import write_folder
from test_octo_checkpoint import small_arrays, small_json
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hildaft.models.backbone import Backbone, FrozenEncoders
from hildaft.models.encoders import KeyPointEncoder
from hildaft.models.octo_backbone import OctoBackbone, load_octo, resize_lanczos
from hildaft.models.selection import EncoderConfig, embed_commands, load_backbone
from hildaft.models.t5 import Tokenizer
from hildaft.types import HilDaftError, Observation

WORDS = ["<pad>", "</s>", "<unk>", "lift", "the", "bolt", "push", "positive", "negative", "x"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    """A tiny tokenizer that ends a sentence as T5's does."""
    raw = RawTokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    fast.save_pretrained(folder)
    return folder


def t5_arrays(seed: int = 3) -> dict[str, np.ndarray]:
    """A random T5 encoder under its published names: 2 layers, width 7, 2 heads of 3, 10 words."""
    rng, arrays = np.random.default_rng(seed), {}
    root = "octo_transformer/task_tokenizers_language/hf_model"

    def add(name: str, *shape: int) -> None:
        arrays[f"{root}/{name}"] = rng.standard_normal(shape).astype(np.float32) * 0.5

    add("shared/embedding", len(WORDS), 7)
    for i in range(2):
        layer = f"encoder/block/{i}/layer"
        for part in "qkv":
            add(f"{layer}/0/SelfAttention/{part}/kernel", 7, 6)
        add(f"{layer}/0/SelfAttention/o/kernel", 6, 7)
        if i == 0:
            add(f"{layer}/0/SelfAttention/relative_attention_bias/embedding", 8, 2)
        add(f"{layer}/0/layer_norm/weight", 7)
        add(f"{layer}/1/DenseReluDense/wi/kernel", 7, 11)
        add(f"{layer}/1/DenseReluDense/wo/kernel", 11, 7)
        add(f"{layer}/1/layer_norm/weight", 7)
    add("encoder/final_layer_norm/weight", 7)
    return arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    arrays = {**small_arrays(), **t5_arrays()}
    return write_folder(tmp_path_factory.mktemp("octo") / "octo", small_json(), arrays)


@pytest.fixture(scope="module")
def backbone(folder, tokenizer) -> OctoBackbone:
    return load_octo(str(folder), str(tokenizer))


def images(seed: int = 0, **sizes: tuple[int, int]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8, generator=generator)
        for name, size in sizes.items()
    }


def test_images_and_words_reach_h(backbone):
    assert isinstance(backbone, Backbone)
    seen = images(head=(64, 64), wrist=(32, 32))
    words = backbone.embed_instruction("lift the bolt")
    h = backbone.encode(seen, words)
    assert h.shape == (2, backbone.dim)
    assert words.shape == (4, 7)
    assert (
        backbone.encode(seen, backbone.embed_instruction("push the bolt")) - h
    ).abs().max() > 1e-3
    assert (backbone.encode(images(1, head=(64, 64), wrist=(32, 32)), words) - h).abs().max() > 1e-3
    one = {name: image[1:] for name, image in seen.items()}
    torch.testing.assert_close(backbone.encode(one, words), h[1:], atol=1e-5, rtol=0)


def test_a_robot_without_wrist_camera_and_of_another_size_is_served(backbone):
    words = backbone.embed_instruction("lift the bolt")
    seen = images(front=(48, 80), side=(10, 10))
    h = backbone.encode(seen, words)
    small = {"head": resize_lanczos(seen["front"], 64)}
    torch.testing.assert_close(backbone.encode(small, words), h)
    with pytest.raises(HilDaftError, match="camera side: Octo is shown front, head"):
        backbone.encode({"side": seen["side"]}, words)
    with pytest.raises(HilDaftError, match="say what to do"):
        backbone.embed_instruction(" ")


def test_lanczos_keeps_flat_images_and_averages_noise():
    flat = torch.full((1, 480, 640, 3), 77, dtype=torch.uint8)
    assert torch.equal(resize_lanczos(flat, 64), flat[:, :64, :64])
    noise = images(head=(640, 640))["head"]
    assert resize_lanczos(noise, 64).float().std() < noise.float().std() / 5


def test_hash_follows_parameters_tokenizer_and_version(folder, tokenizer, backbone, tmp_path):
    hashes = {backbone.hash, load_octo(str(folder), str(tokenizer)).hash}
    assert len(hashes) == 1
    other = {**small_arrays(seed=1), **t5_arrays()}
    path = write_folder(tmp_path / "other", small_json(), other)
    hashes.add(load_octo(str(path), str(tokenizer)).hash)
    old = write_folder(
        tmp_path / "old", small_json(version="1.0"), {**small_arrays(), **t5_arrays()}
    )
    hashes.add(load_octo(str(old), str(tokenizer)).hash)
    raw = json.loads((tokenizer / "tokenizer.json").read_text())
    raw["model"]["vocab"] |= {"pick": 3, "lift": 4, "up": 5, "the": 6, "bolt": 7}
    foreign = tmp_path / "tokenizer"
    foreign.mkdir()
    for file in tokenizer.iterdir():
        (foreign / file.name).write_bytes(file.read_bytes())
    (foreign / "tokenizer.json").write_text(json.dumps(raw))
    hashes.add(load_octo(str(folder), str(foreign)).hash)
    assert len(hashes) == 4


def test_unusable_sources_are_named(tmp_path, folder, tokenizer):
    with pytest.raises(HilDaftError, match=r"tokenizer .*give the folder of a download"):
        load_octo(str(folder), str(tmp_path))
    with pytest.raises(HilDaftError, match="tokenizer 'no-such/tokenizer'"):
        Tokenizer("no-such/tokenizer")
    silent = write_folder(tmp_path / "silent", small_json(), small_arrays())
    with pytest.raises(HilDaftError, match="no T5 encoder inside"):
        load_octo(str(silent), str(tokenizer))
    broken = t5_arrays()
    name = "octo_transformer/task_tokenizers_language/hf_model/encoder/block/1/layer/1/layer_norm"
    del broken[f"{name}/weight"]
    path = write_folder(tmp_path / "broken", small_json(), {**small_arrays(), **broken})
    with pytest.raises(HilDaftError, match=r"missing: .*block/1/layer/1/layer_norm/weight"):
        load_octo(str(path), str(tokenizer))


def test_one_word_chooses_it_and_the_worker_hands_it_whole_images(folder, tokenizer):
    config = EncoderConfig(tokenizer=str(tokenizer))
    chosen = load_backbone(f"octo:{folder}", config)
    frozen = FrozenEncoders(chosen, KeyPointEncoder().eval(), {"a": "lift the bolt"})
    rng = np.random.default_rng(0)
    raw = {
        n: rng.integers(0, 256, (s, s, 3), dtype=np.uint8)
        for n, s in (("head", 256), ("wrist", 128))
    }
    encoded = frozen.encode(Observation(images=raw, proprio=np.zeros(2, np.float32)), "a")
    whole = {name: torch.from_numpy(image)[None] for name, image in raw.items()}
    expected = chosen.encode(whole, chosen.embed_instruction("lift the bolt"))
    np.testing.assert_allclose(encoded.h, expected[0].detach().numpy(), atol=1e-5)


def test_a_tokenizer_inside_the_folder_is_found(folder, tokenizer, backbone, tmp_path):
    copy = tmp_path / "octo"
    shutil.copytree(folder, copy)
    shutil.copytree(tokenizer, copy / "tokenizer")
    assert load_octo(str(copy)).hash == backbone.hash


def test_commands_by_a_t5_encoder(tmp_path, tokenizer):
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    config = T5Config(d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=len(WORDS))
    T5EncoderModel(config).save_pretrained(tmp_path)
    for file in tokenizer.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    phrases = ("positive x", "negative x", "positive x")
    table = embed_commands(phrases, EncoderConfig(text=f"t5:{tmp_path}"))
    assert table.shape == (3, 12)
    torch.testing.assert_close(table.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(table[0], table[2])
    assert (table[0] - table[1]).abs().max() > 1e-2
    # Padding must not reach the mean: a phrase alone and among longer ones is the same.
    longer = embed_commands(
        ("positive x", "lift the bolt push the bolt x"), EncoderConfig(text=f"t5:{tmp_path}")
    )
    torch.testing.assert_close(longer[0], table[0], atol=1e-5, rtol=0)
    # Learner, policy and checkpoint ask for one table: it is embedded once.
    again = embed_commands(tuple(phrases), EncoderConfig(text=f"t5:{tmp_path}"))
    assert embed_commands(phrases, EncoderConfig(text=f"t5:{tmp_path}")) is again
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(HilDaftError, match="T5 encoder"):
        embed_commands(phrases[:1], EncoderConfig(text=f"t5:{tmp_path}"))


@pytest.mark.parametrize(
    ("name", "told"),
    [("octo-tny", "did you mean 'octo-tiny'"), ("octo:", "octo:SOURCE"), ("", "are allowed")],
)
def test_unknown_backbones_are_named(name, told):
    with pytest.raises(HilDaftError, match=told):
        load_backbone(name, EncoderConfig())


@pytest.mark.parametrize(
    ("field", "value"),
    [("image", "resnet10"), ("image", "resnet50:x"), ("text", "t5"), ("text", "bert")],
)
def test_unknown_encoders_are_named(field, value):
    with pytest.raises(HilDaftError, match=f"encoders.{field}="):
        EncoderConfig(**{field: value})


def test_a_head_without_window_size_in_the_config_is_read(tmp_path):
    config = small_json()
    del config["window_size"], config["text_processor"]
    folder = write_folder(tmp_path / "octo", config, {**small_arrays(), **t5_arrays()})
    from hildaft.models.octo_checkpoint import load_octo_checkpoint

    checkpoint = load_octo_checkpoint(str(folder))
    assert (checkpoint.window, checkpoint.tokenizer) == (1, "t5-base")
