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

from hildaft.types import COMMAND_COUNT, Episode, HilDaftError, Source

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
_MALFORMED: Final = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
)
"""What reading JSON of a stranger as if it were a header of ours can raise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Which worker made an episode and its number there, from 1: together they name it for good."""

    worker: str
    sequence: int


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
    origin: Origin | None
    """None for an episode that was made on the learner's own machine."""


def serialise_episode(episode: Episode, origin: Origin | None = None) -> bytes:
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
    if origin is not None:
        header |= {"worker": origin.worker, "sequence": str(origin.sequence)}
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
    return _parse_header(path, text, length, size)


def _parse_header(path: Path, text: bytes, length: int, size: int) -> dict[str, str]:
    try:
        header = json.loads(text)
        given = cast(dict[str, object], header.pop("__metadata__"))
        metadata = {key: value for key, value in given.items() if isinstance(value, str)}
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        found, version = metadata["format"], int(metadata["schema"])
    except _MALFORMED as error:
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
    return _summarise(index, path, _read_header(path))


def read_checksum(path: Path) -> str:
    """What the header says the checksum of its contents is, which are not read; else as `read_summary`."""
    return _read_header(path).get("crc32", "")


def checksum_of(data: bytes) -> str:
    """The same of a whole file's bytes, as `serialise_episode` makes them."""
    length = int.from_bytes(data[:8], "little")
    return _parse_header(Path("unwritten"), data[8 : 8 + length], length, len(data))["crc32"]


def _summarise(index: int, path: Path, header: Mapping[str, str]) -> EpisodeSummary:
    try:
        source = header["source"]
        if source not in get_args(Source):
            raise ValueError(f"source={source!r}")
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
            origin=Origin(worker=header["worker"], sequence=int(header["sequence"]))
            if "worker" in header
            else None,
        )
    except (KeyError, ValueError) as error:
        raise refuse(path, f"its header is damaged ({error})") from error


def read_episode(path: Path) -> Episode:
    """Reads and checks one file; raises HilDaftError if it is damaged, foreign or too new."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise refuse(path, error.strerror or str(error)) from error
    _, episode = parse_episode(index_of(path), path, data)
    return episode


def parse_episode(index: int, path: Path, data: bytes) -> tuple[EpisodeSummary, Episode]:
    """Checks the bytes of an episode file; `path` is what a refusal names.

    Raises:
        HilDaftError: if they are damaged, foreign or too new.
    """
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length] if 0 < length <= _MAX_HEADER_BYTES else b""
    header = _parse_header(path, text, length, len(data))
    summary = _summarise(index, path, header)
    try:
        columns: dict[str, np.ndarray] = load_safetensors(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise refuse(path, f"it is damaged ({error})") from error
    if header.get("crc32") != f"{_checksum(header, columns):08x}":
        raise refuse(path, "it is damaged (its checksum does not match)")
    try:
        arrays = {name: columns[name] for name in _COLUMNS}
        _require_counts(path, summary, arrays)
        images = {
            name.removeprefix(_OFFSETS): _images(
                path, columns[_IMAGE + name.removeprefix(_OFFSETS)], column, summary.steps + 1
            )
            for name, column in columns.items()
            if name.startswith(_OFFSETS)
        }
    except KeyError as error:
        raise refuse(path, f"column {error} is missing") from error
    episode = Episode(
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
    return summary, episode


def _require_counts(path: Path, summary: EpisodeSummary, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuses a file whose header, which is read without the arrays elsewhere, says another thing than they do."""
    reward, steps = arrays["reward"], summary.steps
    if reward.shape != (steps,):
        raise refuse(path, f"its header says steps={steps}, reward is {list(reward.shape)}")
    interventions = int(np.count_nonzero(arrays["is_intervention"]))
    if interventions != summary.interventions:
        said = f"its header says interventions={summary.interventions}, is_intervention {interventions}"
        raise refuse(path, said)


def _images(path: Path, blob: np.ndarray, offsets: np.ndarray, count: int) -> tuple[bytes, ...]:
    """One camera's images; refused unless the offsets cut the bytes in `count` parts, each byte in one of them."""
    if offsets.dtype != np.int64 or offsets.ndim != 1 or blob.dtype != np.uint8 or blob.ndim != 1:
        said = f"image offsets are {offsets.dtype}{list(offsets.shape)}, images {blob.dtype}{list(blob.shape)}"
        raise refuse(path, said)
    if len(offsets) != count + 1:
        raise refuse(path, "it has not one image per observation and camera")
    # Before anything is cut: overlapping parts of one megabyte could be gigabytes.
    if offsets[0] != 0 or offsets[-1] != len(blob) or (offsets[1:] < offsets[:-1]).any():
        raise refuse(path, "its image offsets do not run from the first image byte to the last")
    data = blob.tobytes()
    return tuple(data[low:high] for low, high in itertools.pairwise(offsets.tolist()))


def find_fault(episode: Episode) -> str | None:
    """What makes an episode unfit for training although its bytes are whole; None where nothing does.

    For episodes of another machine: a checksum says that nothing was changed on the way, not that the sender
    made sense.
    """
    steps = len(episode)
    if steps == 0:
        return "it has no step"
    for name, dtype in _COLUMNS.items():
        column: np.ndarray = getattr(episode, name)
        rows = steps + 1 if name in ("h", "features", "proprio") else steps
        wide = {"policy_action": 7, "human_action": 7, "executed_action": 7, "displacement_m": 3}
        shape = (rows, wide[name]) if name in wide else (rows,)
        matrix = name in ("h", "features", "proprio")
        if column.dtype != dtype or (
            column.ndim != 2 or len(column) != rows if matrix else column.shape != shape
        ):
            return f"{name} is {column.dtype}{list(column.shape)} in an episode of {steps} steps"
    for name in ("h", "features", "proprio", "executed_action", "displacement_m", "reward"):
        if not np.isfinite(getattr(episode, name)).all():
            return f"{name} holds values that are not finite"
    if np.abs(episode.executed_action).max() > 1.0:
        return "executed_action holds values outside -1 to 1"
    for name in ("spoken", "refinement"):
        column = getattr(episode, name)
        if column.min() < 0 or column.max() >= COMMAND_COUNT:
            return f"{name} holds values outside 0 to {COMMAND_COUNT - 1}"
    ended = episode.terminated | episode.truncated
    if ended[:-1].any() or not ended[-1]:
        return "its last step, and no other, must end it"
    reached = bool(episode.terminated[-1] and episode.reward[-1] > 0)
    if episode.success != reached:
        return f"its header says success={episode.success}, its last step {reached}"
    return None


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
