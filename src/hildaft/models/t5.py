"""The T5 text encoder, through `transformers`, which is imported only when a T5 is asked for (extra `t5`)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hildaft.types import HilDaftError

_PROBES: Final = ("pick up the bolt", "Place it UPRIGHT, 3 cm to the left!", "")
"""Sentences whose token ids tell one tokenizer from another."""

_MISSING: Final = "it needs the package `transformers`: pip install 'hildaft[t5]'"


@final
class Tokenizer:
    """Text to token ids of a fixed length: a Hugging Face tokenizer from a folder or, by name, from the hub."""

    def __init__(self, source: str) -> None:
        """Raises HilDaftError where `transformers` or the tokenizer is missing."""
        self._source = source
        self._tokenizer = _from_pretrained("AutoTokenizer", "tokenizer", source)

    def ids(
        self, texts: Sequence[str], length: int
    ) -> tuple[Int[Tensor, "b l"], Int[Tensor, "b l"]]:
        """Ids and mask (1 = token, 0 = padding), padded and cut to `length`."""
        rows = self._tokenizer(
            list(texts),
            max_length=length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        return rows["input_ids"], rows["attention_mask"]

    def fingerprint(self) -> str:
        """The ids of a few sentences: equal for tokenizers that read alike."""
        return json.dumps([self.ids([text], 16)[0].tolist() for text in _PROBES])


def build_t5(sizes: Mapping[str, int], tensors: Mapping[str, Tensor]) -> nn.Module:
    """A frozen T5 encoder (ReLU, not gated, as Octo's) of the given sizes and weights.

    Args:
        sizes: d_model, d_kv, d_ff, num_layers, num_heads, vocab_size and relative_attention_num_buckets.
        tensors: weights by the names of `T5EncoderModel`.

    Raises:
        HilDaftError: `transformers` is missing.
    """
    try:
        from transformers import T5Config, T5EncoderModel
    except ImportError as error:
        msg = f"T5: {_MISSING}"
        raise HilDaftError(msg) from error
    settings = cast("Any", T5Config)
    config = settings(**sizes, feed_forward_proj="relu", layer_norm_epsilon=1e-6, dropout_rate=0.0)
    # No initialisation: every weight is replaced.
    with torch.device("meta"):
        model = T5EncoderModel(config)
    shared = {"encoder.embed_tokens.weight": tensors["shared.weight"]}
    kept = {**tensors, **{k: v for k, v in shared.items() if k in model.state_dict()}}
    model.load_state_dict(kept, assign=True)
    return model.requires_grad_(requires_grad=False).eval()


@torch.no_grad()
def run_t5(
    model: nn.Module, ids: Int[Tensor, "b l"], mask: Int[Tensor, "b l"]
) -> Float[Tensor, "b l e"]:
    """Last hidden states of the encoder."""
    return model(input_ids=ids, attention_mask=mask).last_hidden_state


def embed_phrases_t5(phrases: Sequence[str], source: str) -> Float[Tensor, "c e"]:
    """The command phrases by a published T5 encoder, one row of length 1 each: the mean over a phrase's tokens.

    Raises HilDaftError where `transformers`, the encoder or its tokenizer is missing.
    """
    tokenizer = Tokenizer(source)
    model = _from_pretrained("T5EncoderModel", "T5 encoder", source).eval()
    ids, mask = tokenizer.ids(phrases, 16)
    hidden = run_t5(model, ids, mask)
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * weight).sum(1) / weight.sum(1)
    return (mean / mean.norm(dim=1, keepdim=True)).float()


def _from_pretrained(kind: str, what: str, source: str) -> Any:  # noqa: ANN401 - a class of transformers
    try:
        import transformers
    except ImportError as error:
        msg = f"{what} {source!r}: {_MISSING}"
        raise HilDaftError(msg) from error
    try:
        return getattr(transformers, kind).from_pretrained(
            source, local_files_only=Path(source).is_dir()
        )
    # The hub's errors, a missing file and a foreign file have no common type narrower than these.
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        msg = (
            f"{what} {source!r}: neither a folder that holds one nor to be had from the hub "
            f"({reason}); give the folder of a download"
        )
        raise HilDaftError(msg) from error
