"""Reads the msgpack file in which Flax and orbax keep a tree of arrays, with msgpack and NumPy alone.

Maps are maps. An array is extension type 1, whose payload is msgpack again: (shape, name of the dtype, raw bytes in row
order, little endian); type 3 is a scalar written the same way, type 2 a complex number. An array too large for one
value is a map with the marker `__msgpack_chunked_array__`, its shape and its flat pieces. Decoding builds arrays and
maps, nothing else: no code of the file's choosing runs, and no size it claims is allocated before it is checked.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from hildaft.types import HilDaftError

_ARRAY, _SCALAR = 1, 3
_CHUNKED: Final = "__msgpack_chunked_array__"
_PLACEHOLDER: Final = "PLACEHOLDER://"
_DTYPES: Final = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        *("float16", "float32", "float64", "bool"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    )
}


def read_flax_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of the file by its path in the tree, joined with "/"; bfloat16 comes as float32.

    Raises:
        HilDaftError: no such file, truncated, not such a file, or a value in it that is no number array.
    """
    import msgpack

    try:
        data = path.read_bytes()
    except OSError as error:
        raise _refuse(path, error.strerror or str(error)) from error
    try:
        # The limits of `unpackb` follow from the length of the data, so no header can ask for more.
        tree: Any = msgpack.unpackb(data, raw=False, strict_map_key=True, ext_hook=_extension)
    # msgpack's errors are ValueErrors; a RecursionError is the nesting of a hostile file.
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _refuse(path, f"truncated or no Flax msgpack ({reason})") from error
    if not isinstance(tree, dict):
        raise _refuse(path, f"a map of parameters is expected, found {type(tree).__name__}")
    try:
        return dict(_leaves(cast("dict[str, Any]", tree), ""))
    except (ValueError, RecursionError) as error:
        raise _refuse(path, str(error)) from error


def _leaves(tree: dict[Any, Any], prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    for key, value in tree.items():
        # MessagePack may key a map by bytes.
        if not isinstance(key, str) or "/" in key or not key:
            msg = f"entry {prefix}{key!r}: its name is no plain text"
            raise ValueError(msg)
        name = prefix + key
        if isinstance(value, dict):
            branch = cast("dict[str, Any]", value)
            if _CHUNKED in branch:
                yield name, _join_chunks(name, branch)
            else:
                yield from _leaves(branch, f"{name}/")
        elif isinstance(value, np.ndarray):
            yield name, value
        elif isinstance(value, bool | int | float):
            yield name, np.asarray(value)
        elif isinstance(value, str) and value.startswith(_PLACEHOLDER):
            msg = (
                f"entry {name} was written to a file of its own by orbax; "
                "only checkpoints written whole (as Octo's are) can be read"
            )
            raise ValueError(msg)
        elif value is not None:
            msg = f"entry {name} holds a {type(value).__name__}, an array is expected"
            raise ValueError(msg)


def _extension(code: int, payload: bytes) -> np.ndarray:
    import msgpack

    if code not in (_ARRAY, _SCALAR):
        msg = f"extension type {code} is no number array"
        raise ValueError(msg)
    parts: Any = msgpack.unpackb(payload, raw=True)
    match parts:
        case [[*shape], bytes(name), bytes(data)] if all(
            type(side) is int and side >= 0 for side in shape
        ):
            return _array(tuple(shape), name.decode("ascii", "replace"), data)
        case _:
            msg = "an array is not written as (shape, dtype, bytes)"
            raise ValueError(msg)


def _array(shape: tuple[int, ...], name: str, data: bytes) -> np.ndarray:
    if name == "bfloat16":
        # The upper half of a float32.
        halves = _array(shape, "uint16", data)
        return (halves.astype(np.uint32) << 16).view(np.float32)
    if name not in _DTYPES:
        msg = f"dtype {name!r}: {', '.join(_DTYPES)} or bfloat16 is allowed"
        raise ValueError(msg)
    dtype = _DTYPES[name]
    if math.prod(shape) * dtype.itemsize != len(data):
        msg = f"an array of shape {shape} and dtype {name} has {len(data)} bytes"
        raise ValueError(msg)
    return np.frombuffer(data, dtype).reshape(shape)


def _join_chunks(name: str, branch: dict[str, Any]) -> np.ndarray:
    shape = _numbered(name, branch.get("shape"))
    chunks = _numbered(name, branch.get("chunks"))
    sides = [int(side) for side in shape if type(side) is int or isinstance(side, np.ndarray)]
    arrays = [chunk for chunk in chunks if isinstance(chunk, np.ndarray) and chunk.ndim == 1]
    if len(sides) != len(shape) or len(arrays) != len(chunks) or not arrays:
        msg = f"entry {name}: its pieces are damaged"
        raise ValueError(msg)
    if math.prod(sides) != sum(map(len, arrays)) or min(sides, default=0) < 0:
        msg = f"entry {name}: its {sum(map(len, arrays))} values do not fill shape {tuple(sides)}"
        raise ValueError(msg)
    return np.concatenate(arrays).reshape(sides)


def _numbered(name: str, branch: object) -> list[Any]:
    """The values of {"0": ..., "1": ...} in order: how Flax writes a tuple."""
    entries = cast("dict[str, Any]", branch) if isinstance(branch, dict) else {}
    if not entries or set(entries) != {str(i) for i in range(len(entries))}:
        msg = f"entry {name}: its pieces are not numbered from 0"
        raise ValueError(msg)
    return [entries[str(i)] for i in range(len(entries))]


def _refuse(path: Path, reason: str) -> HilDaftError:
    return HilDaftError(f"checkpoint file {path}: {reason}; fetch the checkpoint again")
