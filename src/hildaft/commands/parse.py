"""How a command reads its words."""

from collections.abc import Sequence
from pathlib import Path
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


def environment_file(words: Sequence[str]) -> Path | None:
    """What --env names: the environment decides which task names the other options may hold."""
    for index, word in enumerate(words):
        if word.startswith("--env="):
            return Path(word.removeprefix("--env="))
        if word == "--env" and index + 1 < len(words):
            return Path(words[index + 1])
    return None
