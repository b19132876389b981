"""Words of a sentence as stable numbers, without a vocabulary file."""

import hashlib
import re


def words_of(text: str) -> list[str]:
    """Lower-case words of a sentence, in order: runs of letters, digits and apostrophes."""
    return re.findall(r"[a-z0-9']+", text.lower())


def bucket_of(word: str, buckets: int) -> int:
    """SHA-256 of a word modulo `buckets`: the same on every machine and in every version of Python."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") % buckets
