import pytest
import torch
from torch import Tensor

from hildaft.models.backbone import Backbone, load_weights, save_weights
from hildaft.models.smol import CELLS, SmolConfig, SmolTiny, load_smol_tiny, rotate
from hildaft.types import HilDaftError


def images(seed: int = 0, batch: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 128, 128, 3)
    return {
        name: torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        for name in ("head", "wrist")
    }


def test_images_and_words_reach_h():
    torch.manual_seed(0)
    model = SmolTiny().eval()
    assert isinstance(model, Backbone)
    with torch.inference_mode():
        h = model.encode(images(), model.embed_instruction("lift the bolt"))
        same = model.encode(images(), model.embed_instruction("Lift, the BOLT!"))
        other = model.encode(images(), model.embed_instruction("push the bolt"))
        seen = model.encode(images(1), model.embed_instruction("lift the bolt"))
    assert h.shape == (2, model.dim) == (2, 2 * 2 * 48)
    torch.testing.assert_close(same, h)
    assert (other - h).abs().max() > 1e-4
    assert (seen - h).abs().max() > 1e-4


def test_the_language_model_is_llama_s_and_h_its_pooled_cache():
    """The same weights in transformers' Llama, over the same prefix, fill a cache with the same last layer."""
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    model = SmolTiny().eval()
    config = model.config
    llama = LlamaModel(
        LlamaConfig(
            hidden_size=config.width,
            num_hidden_layers=config.blocks + 1,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.mlp_dim,
            rms_norm_eps=1e-5,
            vocab_size=8,
        )
    ).eval()
    names = {
        "input_layernorm": "attention_norm",
        "self_attn.q_proj": "query",
        "self_attn.k_proj": "cache.key",
        "self_attn.v_proj": "cache.value",
        "self_attn.o_proj": "out",
        "post_attention_layernorm": "mlp_norm",
        "mlp.gate_proj": "gate",
        "mlp.up_proj": "up",
        "mlp.down_proj": "down",
    }
    ours, theirs = model.state_dict(), llama.state_dict()
    for i in range(config.blocks):
        for their, our in names.items():
            theirs[f"layers.{i}.{their}.weight"] = ours[f"blocks.{i}.{our}.weight"]
    last = f"layers.{config.blocks}"
    theirs[f"{last}.input_layernorm.weight"] = ours["norm.weight"]
    theirs[f"{last}.self_attn.k_proj.weight"] = ours["last.key.weight"]
    theirs[f"{last}.self_attn.v_proj.weight"] = ours["last.value.weight"]
    llama.load_state_dict(theirs)
    pixels = {n: i.permute(0, 3, 1, 2).float() / 127.5 - 1 for n, i in images().items()}
    language = model.words(torch.tensor([[3, 4, 5, 0, 0], [7, 8, 9, 10, 11]]))
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    with torch.inference_mode():
        prefix = torch.cat([*(model.towers[n](pixels[n]) for n in pixels), language], 1)
        seen = torch.cat([torch.ones(2, 2 * CELLS, dtype=torch.bool), mask], 1)
        allowed = seen[:, None, None, :].expand(-1, 1, prefix.shape[1], -1)
        bias = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
        cache = llama(inputs_embeds=prefix, attention_mask=bias, use_cache=True).past_key_values
        found = model.tokens(pixels, language, mask).h
    for row in range(2):
        expected = [
            kept[row, :, seen[row]].mean(1).flatten()
            for kept in (cache.layers[-1].keys, cache.layers[-1].values)
        ]
        torch.testing.assert_close(found[row], torch.cat(expected), atol=1e-4, rtol=1e-3)


def test_rotary_positions_depend_on_distance_alone():
    query, key = torch.randn(2, 1, 1, 1, 8).expand(2, 1, 9, 1, 8)
    turned_query, turned_key = rotate(query)[0, :, 0], rotate(key)[0, :, 0]
    for distance in range(5):
        products = [turned_query[i] @ turned_key[i + distance] for i in range(4)]
        torch.testing.assert_close(torch.stack(products), products[0].expand(4))
    torch.testing.assert_close(turned_key[0], key[0, 0, 0])


def test_padded_and_single_instructions_agree():
    model = SmolTiny().eval()
    pixels = {n: i.permute(0, 3, 1, 2).float() / 127.5 - 1 for n, i in images().items()}
    words = torch.zeros(2, 12, dtype=torch.long)
    words[:, :3] = model.words.ids("lift the bolt")
    mask = torch.arange(12).expand(2, -1) < 3
    with torch.inference_mode():
        padded = model.tokens(pixels, model.words(words), mask).h
        single = model.encode(images(), model.embed_instruction("lift the bolt"))
    torch.testing.assert_close(padded, single, atol=1e-5, rtol=1e-4)


def test_hash_follows_weights_and_survives_the_file(tmp_path):
    model, path = SmolTiny(), tmp_path / "smol_tiny.safetensors"
    before = model.hash
    with torch.no_grad():
        model.last.key.weight[0, 0] += 1e-3
    assert model.hash != before
    save_weights(path, model.config_record(), model.state_dict(), {"seed": 0})
    loaded = load_smol_tiny(path)
    assert loaded.hash == model.hash == load_weights(path)[2]
    words = model.embed_instruction("lift")
    torch.testing.assert_close(
        loaded.encode(images(), words), model.encode(images(), words).detach()
    )
    save_weights(path, {"width": 8}, {"x": torch.zeros(1)}, {})
    with pytest.raises(HilDaftError, match="not weights of smol-tiny"):
        load_smol_tiny(path)


def test_the_shipped_weights_tell_states_and_words_apart():
    model = load_smol_tiny()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with torch.inference_mode():
        h = model.encode(images(), model.embed_instruction("lift the bolt"))
        other = model.encode(images(), model.embed_instruction("push the bolt"))
        seen = model.encode(images(1), model.embed_instruction("lift the bolt"))
    assert (other - h).norm() > 0.01 * h.norm()
    assert (seen - h).norm() > 0.01 * h.norm()


def test_bad_inputs_are_named():
    model = SmolTiny()
    with pytest.raises(HilDaftError, match="'wrist' is missing"):
        model.encode({"head": images()["head"]}, model.embed_instruction("lift"))
    with pytest.raises(HilDaftError, match="at least one word"):
        model.embed_instruction(" ?! ")


@pytest.mark.parametrize("change", [{"kv_heads": 3}, {"head_dim": 7}, {"kv_heads": 0}])
def test_config_refuses(change):
    with pytest.raises(HilDaftError, match="is allowed"):
        SmolConfig(**change)
