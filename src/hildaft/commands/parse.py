"""How a command reads its words."""

from collections.abc import Sequence
from typing import TypeVar

import tyro

Args = TypeVar("Args")


def parse_words(
    kind: type[Args], name: str, words: Sequence[str], default: Args | None = None
) -> Args:
    """A dataclass filled from the words of `hildaft NAME`; ends the process on --help or unknown options."""
    if default is None:
        return tyro.cli(kind, prog=f"hildaft {name}", args=list(words))
    return tyro.cli(kind, prog=f"hildaft {name}", args=list(words), default=default)
