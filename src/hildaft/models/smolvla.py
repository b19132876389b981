"""SmolVLA through LeRobot's own class (extra `smolvla`), read at its prefix cache as the paper does (eq. 17).

LeRobot is imported only here and only when a SmolVLA is chosen. Its action expert is not run: h comes from the
vision-language model alone, under a frozen prefix of images, words and the state token.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast, final

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from hildaft.models.backbone import content_hash
from hildaft.models.pooling import last_layer, pool_prefix
from hildaft.types import HilDaftError

HUB_NAME: Final = "lerobot/smolvla_base"
"""The published weights."""
_PREPROCESSING: Final = 1
"""Counts changes of what happens to images and words before the network; part of the hash."""


@final
class SmolVLABackbone:
    """A frozen SmolVLA: h is the pooled cache of its last vision-language layer, 2 * key-value heads * head width.

    The state token stands for the mean of the training data's states (zero after normalisation), since the robot's
    own state reaches actors and critics beside h. Images and words do not attend to it, so leaving it out of the
    pooling makes h independent of it.
    """

    def __init__(self, policy: Any, tokenizer: Any, *, pool_state: bool) -> None:  # noqa: ANN401 - LeRobot's classes
        self._policy = policy.eval()
        for parameter in policy.parameters():
            parameter.requires_grad_(requires_grad=False)
        self._tokenizer = tokenizer
        self._pool_state = pool_state
        self._features = [str(name) for name in policy.config.image_features]
        text = policy.model.vlm_with_expert.config.text_config
        heads = int(text.num_key_value_heads)
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self._dim = 2 * heads * int(head_dim)
        self._hash = self._content()

    @property
    def dim(self) -> int:
        """Width of h."""
        return self._dim

    @property
    def hash(self) -> str:
        """Content hash of the weights, the tokenizer and how the cache is pooled."""
        return self._hash

    def embed_instruction(self, text: str) -> Float[Tensor, "l e"]:
        """Token ids and mask of an instruction, as SmolVLA's own processor pads it.

        Its word embedding is a lookup inside the prefix; every other part of the language is done here, once per task.
        Ids are exact in float32. Raises HilDaftError where the text is empty.
        """
        if not text.strip():
            msg = f"instruction={text!r}: at least one word is allowed; say what to do"
            raise HilDaftError(msg)
        config = self._policy.config
        rows = self._tokenizer(
            # SmolVLA was trained on instructions that end a line.
            [text if text.endswith("\n") else f"{text}\n"],
            max_length=config.tokenizer_max_length,
            padding=config.pad_language_to,
            padding_side="right",
            truncation=True,
            return_tensors="pt",
        )
        pair = torch.stack([rows["input_ids"][0], rows["attention_mask"][0]], -1)
        return pair.to(torch.float32)

    @torch.no_grad()
    def encode(
        self, images: Mapping[str, UInt8[Tensor, "b h w 3"]], instruction: Float[Tensor, "l e"]
    ) -> Float[Tensor, "b d"]:
        """The embedding h of a batch of observations (eq. 3, 17); raises HilDaftError where there is no image."""
        model, config = self._policy.model, self._policy.config
        dtype = next(model.parameters()).dtype
        batch = {
            key: images[camera].permute(0, 3, 1, 2).to(dtype) / 255.0
            for key, camera in match_cameras(self._features, list(images)).items()
        }
        pixels, masks = self._policy.prepare_images(batch)
        count = len(pixels[0])
        ids = instruction[:, 0].long().expand(count, -1)
        words = instruction[:, 1].bool().expand(count, -1)
        state = torch.zeros(count, config.max_state_dim, dtype=dtype, device=pixels[0].device)
        prefix, seen, rule = model.embed_prefix(pixels, masks, ids, words, state=state)
        _, cache = model.vlm_with_expert.forward(
            attention_mask=_attention(seen, rule),
            position_ids=seen.cumsum(1) - 1,
            past_key_values=None,
            inputs_embeds=[prefix, None],
            use_cache=True,
            **_fill_argument(model.vlm_with_expert.forward),
        )
        keys, values = last_layer(cache)
        return pool_prefix(keys, values, self._pooled(seen, rule)).float()

    def _pooled(self, seen: Bool[Tensor, "b t"], rule: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
        # In the prefix the state token alone opens a block that the others may not look at.
        return seen if self._pool_state else seen & ~rule.bool()

    def _content(self) -> str:
        tensors = {
            name: value.float() if value.dtype == torch.bfloat16 else value
            for name, value in self._policy.state_dict().items()
        }
        config = self._policy.config
        record = {
            "weights": content_hash({}, tensors),
            "words": self._tokenizer("Pick up the bolt, 3 cm left!\n")["input_ids"],
            "pool_state": self._pool_state,
            "features": self._features,
            "resize": list(config.resize_imgs_with_padding or ()),
            "tokens": [config.tokenizer_max_length, config.pad_language_to],
            "preprocessing": _PREPROCESSING,
        }
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def match_cameras(features: list[str], cameras: list[str]) -> dict[str, str]:
    """Which camera is shown as which image of the model: by name where equal, the others in order.

    A model's image that no camera is left for is not shown, as LeRobot does. Raises HilDaftError where there is none.
    """
    if not cameras or not features:
        msg = f"images of {', '.join(cameras) or 'no camera'}: SmolVLA takes {', '.join(features)}"
        raise HilDaftError(msg)
    by_name = {key: key.rsplit(".", 1)[-1] for key in features}
    matched = {key: name for key, name in by_name.items() if name in cameras}
    left = [camera for camera in cameras if camera not in matched.values()]
    rest = [key for key in features if key not in matched]
    return {**matched, **dict(zip(rest, left, strict=False))}


def _attention(seen: Bool[Tensor, "b t"], rule: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t t"]:
    """A token may look at valid tokens of its own block and of those before it."""
    block = rule.long().cumsum(1)
    return (block[:, None, :] <= block[:, :, None]) & seen[:, None, :] & seen[:, :, None]


def _fill_argument(forward: Any) -> dict[str, bool]:  # noqa: ANN401 - a method of LeRobot
    # LeRobot before 0.5 was told to fill the cache; later versions see that there is none.
    names = cast("tuple[str, ...]", forward.__code__.co_varnames)
    return (
        {"fill_kv_cache": True} if "fill_kv_cache" in names[: forward.__code__.co_argcount] else {}
    )


def load_smolvla(source: str, *, pool_state: bool) -> SmolVLABackbone:
    """A SmolVLA by the folder of a LeRobot checkpoint, or by name from the hub.

    Raises:
        HilDaftError: LeRobot is missing, or the checkpoint or the language model's folder it names cannot be had.
    """
    try:
        from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy  # pyright: ignore[reportMissingImports]
        from transformers import AutoTokenizer
    except ImportError as error:
        msg = (
            f"smolvla: LeRobot cannot be imported ({error}); install it in an environment of its "
            "own: pip install 'hildaft[smolvla]' (Python 3.12, see docs/backbones.md)"
        )
        raise HilDaftError(msg) from error
    local = Path(source).is_dir()
    try:
        policy = SmolVLAPolicy.from_pretrained(source, local_files_only=local)
        name = policy.config.vlm_model_name
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=Path(name).is_dir())
    # LeRobot, the hub and the tokenizer have no common error; the reason is told.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        msg = (
            f"smolvla {source!r}: cannot be loaded ({reason}); give the folder of a checkpoint whose "
            "config.json names a vlm_model_name that is there"
        )
        raise HilDaftError(msg) from error
    return SmolVLABackbone(policy, tokenizer, pool_state=pool_state)
