"""SmolVLA through LeRobot, on a tiny random one built offline. Runs where LeRobot is installed (docs/backbones.md)."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from hildaft.models.smolvla import load_smolvla, match_cameras
from hildaft.types import HilDaftError

needs_lerobot = [
    pytest.mark.smolvla,
    pytest.mark.skipif(find_spec("lerobot") is None, reason="LeRobot is not installed here"),
    # LeRobot's own dependencies warn.
    pytest.mark.filterwarnings("default"),
]


def marked(test):
    for mark in needs_lerobot:
        test = mark(test)
    return test


def test_cameras_are_matched_by_name_then_in_order():
    features = ["observation.images.wrist", "observation.image", "observation.image2"]
    assert match_cameras(features, ["head", "wrist"]) == {
        "observation.images.wrist": "wrist",
        "observation.image": "head",
    }
    assert match_cameras(features[:1], ["head", "side"]) == {"observation.images.wrist": "head"}
    with pytest.raises(HilDaftError, match="no camera: SmolVLA takes"):
        match_cameras(features, [])


@pytest.mark.skipif(find_spec("lerobot") is not None, reason="LeRobot is installed here")
def test_without_lerobot_the_way_out_is_named():
    with pytest.raises(HilDaftError, match=r"hildaft\[smolvla\].*docs/backbones.md"):
        load_smolvla("lerobot/smolvla_base", pool_state=False)


SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>"),
    *("<global-img>", "<image>", "<end_of_utterance>"),
)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory) -> Path:
    """Configuration, tokenizer and processor of a tiny SmolVLM: what SmolVLA reads by `vlm_model_name`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import (
        PreTrainedTokenizerFast,
        SmolVLMConfig,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(["pick up the bolt", "place the bolt upright"], trainer)
    end, _, _, fake, whole, image, utterance = SPECIAL
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), end),
        extra_special_tokens={
            "fake_image_token": fake,
            "image_token": image,
            "global_image_token": whole,
            "end_of_utterance_token": utterance,
        },
    )
    text = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 96,
        "vocab_size": len(tokenizer),
    }
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "image_size": 64,
        "patch_size": 8,
    }
    config = SmolVLMConfig(
        text_config=text,
        vision_config=vision,
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids(image),
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("smolvlm")
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = SmolVLMProcessor(SmolVLMImageProcessor(), tokenizer, SmolVLMVideoProcessor())
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(language_model, tmp_path_factory) -> Path:
    """A checkpoint of a tiny random SmolVLA, as LeRobot saves one."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    torch.manual_seed(0)
    image = PolicyFeature(type=FeatureType.VISUAL, shape=(3, 64, 64))
    config = SmolVLAConfig(
        vlm_model_name=str(language_model),
        load_vlm_weights=False,
        num_vlm_layers=4,
        resize_imgs_with_padding=(64, 64),
        chunk_size=8,
        n_action_steps=8,
        max_action_dim=7,
        max_state_dim=18,
        tokenizer_max_length=16,
        pad_language_to="max_length",
        device="cpu",
        input_features={
            "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(2,)),
            "observation.images.head": image,
            "observation.images.wrist": image,
        },
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(7,))},
    )
    place = tmp_path_factory.mktemp("smolvla")
    SmolVLAPolicy(config).save_pretrained(place)
    return place


def images(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "head": torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8, generator=generator),
        "wrist": torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=generator),
    }


@marked
def test_images_and_words_reach_h(folder):
    backbone = load_smolvla(str(folder), pool_state=False)
    words = backbone.embed_instruction("pick up the bolt")
    assert words.shape == (16, 2)
    h = backbone.encode(images(), words)
    # Two key-value heads of 16, keys and values: not the four attention heads.
    assert h.shape == (2, backbone.dim) == (2, 2 * 2 * 16)
    assert h.isfinite().all()
    assert (backbone.encode(images(1), words) - h).abs().max() > 1e-4
    other = backbone.embed_instruction("place the bolt upright")
    assert (backbone.encode(images(), other) - h).abs().max() > 1e-4
    one = {name: image[1:] for name, image in images().items()}
    torch.testing.assert_close(backbone.encode(one, words), h[1:], atol=1e-5, rtol=1e-4)
    with pytest.raises(HilDaftError, match="say what to do"):
        backbone.embed_instruction("  ")


@marked
@pytest.mark.parametrize("pool_state", [False, True])
def test_h_is_the_pooled_cache_that_lerobot_itself_fills(folder, monkeypatch, pool_state):
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
    from transformers import DynamicCache

    backbone = load_smolvla(str(folder), pool_state=pool_state)
    words = backbone.embed_instruction("pick up the bolt")
    policy = SmolVLAPolicy.from_pretrained(folder, local_files_only=True)
    caches = []
    expert = policy.model.vlm_with_expert
    forward = expert.forward

    def watched(*args, **kwargs):
        out = forward(*args, **kwargs)
        if kwargs["past_key_values"] is None:
            caches.append(out[1])
        return out

    monkeypatch.setattr(expert, "forward", watched)
    batch = {
        "observation.state": torch.zeros(2, 2),
        **{f"observation.images.{n}": i.permute(0, 3, 1, 2) / 255 for n, i in images().items()},
        "observation.language.tokens": words[:, 0].long().expand(2, -1),
        "observation.language.attention_mask": words[:, 1].bool().expand(2, -1),
    }
    policy.predict_action_chunk(batch)
    (cache,) = caches
    assert isinstance(cache, DynamicCache)
    keys = cache.layers[-1].keys.transpose(1, 2)
    values = cache.layers[-1].values.transpose(1, 2)
    count = int(words[:, 1].sum())
    # Two cameras of 16 tokens, 16 words of which some are padding, one state token.
    assert keys.shape == (2, 16 + 16 + 16 + 1, 2, 16)
    kept = [*range(32 + count), *([48] if pool_state else [])]
    expected = torch.cat([keys[:, kept].mean(1).flatten(1), values[:, kept].mean(1).flatten(1)], 1)
    torch.testing.assert_close(backbone.encode(images(), words), expected, atol=1e-5, rtol=1e-4)


@marked
def test_hash_names_weights_and_pooling(folder, tmp_path):
    backbone = load_smolvla(str(folder), pool_state=False)
    hashes = {backbone.hash, load_smolvla(str(folder), pool_state=False).hash}
    assert len(hashes) == 1
    hashes.add(load_smolvla(str(folder), pool_state=True).hash)
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    policy = SmolVLAPolicy.from_pretrained(folder, local_files_only=True)
    with torch.no_grad():
        next(policy.parameters()).add_(1e-2)
    policy.save_pretrained(tmp_path)
    hashes.add(load_smolvla(str(tmp_path), pool_state=False).hash)
    assert len(hashes) == 3


@marked
def test_unusable_checkpoints_are_named(tmp_path):
    with pytest.raises(HilDaftError, match="cannot be loaded"):
        load_smolvla(str(tmp_path), pool_state=False)


@marked
def test_one_word_chooses_it(folder):
    from hildaft.models.selection import EncoderConfig, load_backbone

    assert load_backbone(f"smolvla:{folder}", EncoderConfig(state_token=True)).dim == 64


@marked
def test_resnet_is_torchvision_s(tmp_path):
    """Here LeRobot brings a torchvision that works, so the plain-torch ResNet is held against it."""
    from torchvision.models import resnet18

    from hildaft.models.resnet import ResNetConfig, load_resnet

    torch.manual_seed(0)
    theirs = resnet18().eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    ours = load_resnet(tmp_path / "resnet18.pth", ResNetConfig(depth=18)).resnet
    x = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        wanted = theirs.layer4(
            theirs.layer3(
                theirs.layer2(
                    theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x)))))
                )
            )
        )
        torch.testing.assert_close(ours(x), wanted, atol=1e-4, rtol=1e-4)
