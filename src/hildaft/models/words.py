"""Words of a sentence as stable numbers, without a vocabulary file, and their learned embedding."""

import hashlib
import re
from typing import Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hildaft.types import HilDaftError

WORD_BUCKETS: Final = 512
"""Words are hashed into this many learned embeddings."""


def words_of(text: str) -> list[str]:
    """Lower-case words of a sentence, in order: runs of letters, digits and apostrophes."""
    return re.findall(r"[a-z0-9']+", text.lower())


def bucket_of(word: str, buckets: int) -> int:
    """SHA-256 of a word modulo `buckets`: the same on every machine and in every version of Python."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") % buckets


@final
class HashedWords(nn.Embedding):
    """An embedding of any sentence's first words; two words that share a bucket are one word to it."""

    def __init__(self, width: int, longest: int) -> None:
        """`longest` is the number of words after which an instruction is cut."""
        super().__init__(WORD_BUCKETS, width)
        self.longest = longest

    def ids(self, text: str) -> Int[Tensor, " l"]:
        """Buckets of the first words; raises HilDaftError where there is none."""
        words = words_of(text)[: self.longest]
        if not words:
            msg = f"instruction={text!r}: at least one word is allowed; say what to do"
            raise HilDaftError(msg)
        return torch.tensor([bucket_of(word, WORD_BUCKETS) for word in words])

    def embed(self, text: str) -> Float[Tensor, "l e"]:
        """One row per word."""
        return self(self.ids(text).to(self.weight.device))
