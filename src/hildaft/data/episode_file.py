"""The episode file: one safetensors file that says what it holds and proves that it is whole."""

import itertools
import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast, get_args

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from hildaft.types import Episode, HilDaftError, Source

FORMAT: Final = "hildaft.episode"
SCHEMA_VERSION: Final = 1
FILE_NAME: Final = re.compile(r"(\d{6,})-(.+)-(demo|online|eval)\.safetensors")

_COLUMNS: Final = {
    "h": np.float32,
    "features": np.float32,
    "proprio": np.float32,
    "policy_action": np.float32,
    "human_action": np.float32,
    "executed_action": np.float32,
    "is_intervention": np.bool_,
    "spoken": np.int64,
    "refinement": np.int64,
    "displacement_m": np.float32,
    "reward": np.float32,
    "terminated": np.bool_,
    "truncated": np.bool_,
}
_IMAGE: Final = "image/"
_OFFSETS: Final = "image_offsets/"
_MAX_HEADER_BYTES: Final = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeSummary:
    """What the header of an episode file says, read without its arrays."""

    index: int
    path: Path
    task: str
    source: Source
    robot: str
    seed: int
    policy_version: int
    success: bool
    steps: int
    interventions: int
    """Steps in which the human acted in the policy's place."""
    encoder_hash: str


def serialise_episode(episode: Episode) -> bytes:
    """The whole file as bytes, its checksum over header and arrays in the header."""
    columns: dict[str, np.ndarray] = {
        name: np.ascontiguousarray(getattr(episode, name), dtype=dtype)
        for name, dtype in _COLUMNS.items()
    }
    for camera, frames in episode.images.items():
        ends = np.cumsum([0, *map(len, frames)], dtype=np.int64)
        columns[_IMAGE + camera] = np.frombuffer(b"".join(frames), dtype=np.uint8)
        columns[_OFFSETS + camera] = ends
    header = {
        "format": FORMAT,
        "schema": str(SCHEMA_VERSION),
        "task": episode.task,
        "source": episode.source,
        "robot": episode.robot,
        "seed": str(episode.seed),
        "policy_version": str(episode.policy_version),
        "success": str(int(episode.success)),
        "steps": str(len(episode)),
        "interventions": str(int(episode.is_intervention.sum())),
        "encoder_hash": episode.encoder_hash,
    }
    header["crc32"] = f"{_checksum(header, columns):08x}"
    return save_safetensors(columns, header)


def _checksum(header: Mapping[str, str], columns: Mapping[str, np.ndarray]) -> int:
    fields = sorted((key, value) for key, value in header.items() if key != "crc32")
    crc = zlib.crc32(json.dumps(fields).encode())
    for name in sorted(columns):
        column = columns[name]
        crc = zlib.crc32(f"{name} {column.dtype.str} {column.shape}".encode(), crc)
        crc = zlib.crc32(column.tobytes(), crc)
    return crc


def _read_header(path: Path) -> dict[str, str]:
    """The header's metadata, once the file is known to be ours, of full size and not newer."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if 0 < length <= _MAX_HEADER_BYTES else b""
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise refuse(path, error.strerror or str(error)) from error
    try:
        header = json.loads(text)
        metadata = cast(dict[str, str], header.pop("__metadata__"))
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        found, version = metadata["format"], int(metadata["schema"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise refuse(path, "it is damaged or no episode file of ours") from error
    if found != FORMAT:
        raise refuse(path, f"its format is {found!r}, not {FORMAT!r}")
    if version > SCHEMA_VERSION:
        msg = (
            f"episode file {path} has schema version {version}, this HiL-DAFT reads up to "
            f"{SCHEMA_VERSION}: update HiL-DAFT, or move the file out of the folder"
        )
        raise HilDaftError(msg)
    if size != 8 + length + end:
        raise refuse(path, f"it is damaged ({size} bytes, {8 + length + end} expected)")
    return metadata


def read_summary(index: int, path: Path) -> EpisodeSummary:
    """Reads the header alone; raises HilDaftError as `read_episode` does, but for the checksum."""
    header = _read_header(path)
    try:
        source = header["source"]
        if source not in get_args(Source):
            raise ValueError(source)
        return EpisodeSummary(
            index=index,
            path=path,
            task=header["task"],
            source=cast(Source, source),
            robot=header["robot"],
            seed=int(header["seed"]),
            policy_version=int(header["policy_version"]),
            success=header["success"] == "1",
            steps=int(header["steps"]),
            interventions=int(header["interventions"]),
            encoder_hash=header["encoder_hash"],
        )
    except (KeyError, ValueError) as error:
        raise refuse(path, f"its header is damaged ({error})") from error


def read_episode(path: Path) -> Episode:
    """Reads and checks one file; raises HilDaftError if it is damaged, foreign or too new."""
    summary = read_summary(index_of(path), path)
    header = _read_header(path)
    try:
        columns: dict[str, np.ndarray] = load_safetensors(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise refuse(path, f"it is damaged ({error})") from error
    if header.get("crc32") != f"{_checksum(header, columns):08x}":
        raise refuse(path, "it is damaged (its checksum does not match)")
    images: dict[str, tuple[bytes, ...]] = {}
    for name in [name for name in columns if name.startswith(_OFFSETS)]:
        camera, ends = name.removeprefix(_OFFSETS), columns[name].tolist()
        blob = columns[_IMAGE + camera].tobytes()
        images[camera] = tuple(blob[low:high] for low, high in itertools.pairwise(ends))
    try:
        arrays = {name: columns[name] for name in _COLUMNS}
    except KeyError as error:
        raise refuse(path, f"column {error} is missing") from error
    return Episode(
        task=summary.task,
        source=summary.source,
        robot=summary.robot,
        seed=summary.seed,
        policy_version=summary.policy_version,
        success=summary.success,
        images=images,
        encoder_hash=summary.encoder_hash,
        **arrays,
    )


def index_of(path: Path) -> int:
    """The number in a file's name; raises HilDaftError if the name is not one of ours."""
    match = FILE_NAME.fullmatch(path.name)
    if match is None:
        raise refuse(path, "its name is not like 000123-<task>-<source>.safetensors")
    return int(match[1])


def refuse(path: Path, reason: str) -> HilDaftError:
    """The one line that names the file, what is wrong with it and the way out."""
    return HilDaftError(
        f"episode file {path} cannot be used: {reason}; restore it from a copy, or move it out "
        "of the folder"
    )
