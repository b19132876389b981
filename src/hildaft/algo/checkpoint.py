"""Checkpoints: the whole learner state in one directory, written whole or not at all.

Layout of `folder`: `step-00001234/state.safetensors` and `step-00001234/meta.json`. A second
checkpoint of the same step becomes `step-00001234-1`, so that none is ever overwritten.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from hildaft.data.episodes import sync_folder
from hildaft.types import HilDaftError

FORMAT_VERSION: Final = 1
KEEP: Final = 3
"""Number of checkpoints kept; older ones are removed once a new one is durable."""

_STATE: Final = "state.safetensors"
_META: Final = "meta.json"
_TEMPORARY: Final = ".writing-"
_NAME: Final = re.compile(r"step-(\d{8,})(?:-(\d+))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A verified checkpoint."""

    path: Path
    step: int
    tensors: Mapping[str, Tensor]
    """On the CPU; shapes and dtypes exactly as written."""
    meta: Mapping[str, object]
    """What JSON can hold, as written."""
    warning: str | None
    """One line to say aloud if newer checkpoints were damaged and this is an older one."""


def write_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, object], *, step: int
) -> Path:
    """Writes a checkpoint durably into `folder`, keeps the newest three and returns its directory.

    `meta` holds what JSON can.

    Raises:
        HilDaftError: if the folder cannot be written; earlier checkpoints are then as before.
    """
    # Copies, because tensors that share memory are refused by the format.
    copies = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    state = save_safetensors(copies)
    document = {
        "format": FORMAT_VERSION,
        "step": step,
        "sha256": hashlib.sha256(state).hexdigest(),
        "meta_sha256": _digest(meta),
        "meta": meta,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover)
        target = _free_name(folder, step)
        temporary = folder / f"{_TEMPORARY}{target.name}"
        temporary.mkdir()
        _write_durably(temporary / _STATE, state)
        _write_durably(temporary / _META, json.dumps(document, indent=1).encode())
        sync_folder(temporary)
        temporary.rename(target)
        sync_folder(folder)
        for old in list_checkpoints(folder)[:-KEEP]:
            shutil.rmtree(old)
    except OSError as error:
        for leftover in folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        msg = (
            f"checkpoint folder {folder}: {error.strerror or error}; free space or mend its "
            "permissions, then resume (earlier checkpoints are intact)"
        )
        raise HilDaftError(msg) from error
    return target


def read_newest(folder: Path) -> Checkpoint:
    """The newest checkpoint that verifies, with a warning if newer ones had to be passed over.

    Raises:
        HilDaftError: if there is none, or if all are damaged.
    """
    problems: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        with _collecting(problems):
            checkpoint = read_checkpoint(path)
            if not problems:
                return checkpoint
            warning = (
                f"{'; '.join(problems)}; continuing from {path.name}, the newest that is whole"
            )
            return Checkpoint(
                path=path,
                step=checkpoint.step,
                tensors=checkpoint.tensors,
                meta=checkpoint.meta,
                warning=warning,
            )
    if problems:
        msg = (
            f"no whole checkpoint in {folder}: {'; '.join(problems)}; "
            "start a new run, or copy a whole one in"
        )
        raise HilDaftError(msg)
    msg = f"no checkpoint in {folder}: name a run folder that was trained, or start a new run"
    raise HilDaftError(msg)


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads one checkpoint directory and verifies both its digests.

    Raises:
        HilDaftError: if it is damaged, foreign or newer than this version.
    """
    try:
        document = cast(dict[str, Any], json.loads((path / _META).read_bytes()))
        if document["format"] > FORMAT_VERSION:
            msg = (
                f"checkpoint {path} has format {document['format']}, this HiL-DAFT reads up to "
                f"{FORMAT_VERSION}: update HiL-DAFT"
            )
            raise HilDaftError(msg)
        meta = cast(dict[str, object], document["meta"])
        state = (path / _STATE).read_bytes()
        if hashlib.sha256(state).hexdigest() != document["sha256"]:
            raise _damaged(path, f"the digest of {_STATE} does not match")
        if _digest(meta) != document["meta_sha256"]:
            raise _damaged(path, f"the digest of {_META} does not match")
        tensors = load_safetensors(state)
        step = int(document["step"])
    except OSError as error:
        raise _damaged(path, f"{error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _damaged(path, f"{_META} or {_STATE} cannot be understood") from error
    return Checkpoint(path=path, step=step, tensors=tensors, meta=meta, warning=None)


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint directories, oldest first; unverified."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name)), key=_order)


def _free_name(folder: Path, step: int) -> Path:
    plain = folder / f"step-{step:08d}"
    repeats = [
        again for path in list_checkpoints(folder) for at, again in [_order(path)] if at == step
    ]
    return folder / f"{plain.name}-{max(repeats) + 1}" if repeats else plain


def _order(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


def _digest(meta: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _collecting(problems: list[str]) -> Generator[None]:
    try:
        yield
    except HilDaftError as error:
        problems.append(str(error))


def _damaged(path: Path, reason: str) -> HilDaftError:
    return HilDaftError(f"checkpoint {path} is damaged: {reason}")
