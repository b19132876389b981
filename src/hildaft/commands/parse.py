"""How a command reads its words."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import tyro

from hildaft.types import HilDaftError

Args = TypeVar("Args")


def parse_words(
    kind: type[Args], name: str, words: Sequence[str], default: Args | None = None
) -> Args:
    """A dataclass filled from the words of `hildaft NAME`; ends the process on --help or unknown options."""
    if default is None:
        return tyro.cli(kind, prog=f"hildaft {name}", args=list(words))
    return tyro.cli(kind, prog=f"hildaft {name}", args=list(words), default=default)


def split_preset(words: Sequence[str], usual: str = "hildaft") -> tuple[str, Sequence[str]]:
    """The preset, named first or by --preset, and the words that are left.

    Raises:
        HilDaftError: no such preset, or two are named.
    """
    from hildaft.config import PRESETS
    from hildaft.config_files import require_name

    named, rest = list[str](), list(words)
    if rest and not rest[0].startswith("-"):
        named.append(rest.pop(0))
    for index, word in enumerate(rest):
        if word.startswith("--preset="):
            named.append(rest.pop(index).removeprefix("--preset="))
            break
        if word == "--preset" and index + 1 < len(rest):
            named.append(rest.pop(index + 1))
            rest.pop(index)
            break
    if len(named) > 1:
        msg = f"preset={' '.join(named)!r}: one is allowed; name it first or with --preset"
        raise HilDaftError(msg)
    preset = named[0] if named else usual
    require_name("preset", preset, tuple(PRESETS))
    return preset, rest


def environment_file(words: Sequence[str]) -> Path | None:
    """What --env names: the environment decides which task names the other options may hold."""
    for index, word in enumerate(words):
        if word.startswith("--env="):
            return Path(word.removeprefix("--env="))
        if word == "--env" and index + 1 < len(words):
            return Path(words[index + 1])
    return None
