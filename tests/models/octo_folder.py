"""Writes a checkpoint folder byte for byte as the original Octo does: no msgpack library, none of our loader.

Layout: config.json, dataset_statistics.json and <step>/default/checkpoint, a Flax msgpack. The MessagePack format is
written out here so that a mistake in reading cannot hide behind the same mistake in writing.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np


def pack(value: Any) -> bytes:
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return bytes([value]) if 0 <= value < 128 else b"\xcf" + struct.pack(">Q", value)
        case str():
            data = value.encode()
            head = bytes([0xA0 | len(data)]) if len(data) < 32 else b"\xd9" + bytes([len(data)])
            return head + data
        case bytes():
            return b"\xc6" + struct.pack(">I", len(value)) + value
        case tuple() | list():
            assert len(value) < 16
            return bytes([0x90 | len(value)]) + b"".join(map(pack, value))
        case dict():
            head = b"\xde" + struct.pack(">H", len(value))
            return head + b"".join(pack(key) + pack(item) for key, item in value.items())
        case np.ndarray() | np.generic():
            code = 1 if isinstance(value, np.ndarray) else 3
            array = np.asarray(value)
            return extension(code, array.shape, array.dtype.name, array.tobytes("C"))
        case Bfloat16():
            return extension(1, value.array.shape, "bfloat16", value.data())
        case Chunked():
            return pack(value.tree())
    raise TypeError(type(value))


def extension(code: int, shape: tuple[int, ...], dtype: str, data: bytes) -> bytes:
    payload = pack((shape, dtype, data))
    return b"\xc9" + struct.pack(">I", len(payload)) + bytes([code]) + payload


class Bfloat16:
    """An array stored in bfloat16: the upper halves of its float32 values."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array.astype(np.float32)

    def data(self) -> bytes:
        return (self.array.view(np.uint32) >> 16).astype("<u2").tobytes("C")

    def read(self) -> np.ndarray:
        return (self.array.view(np.uint32) & 0xFFFF0000).view(np.float32)


class Chunked:
    """An array stored in flat pieces, as Flax does above a gibibyte."""

    def __init__(self, array: np.ndarray, size: int) -> None:
        self.array, self.size = array, size

    def tree(self) -> dict[str, Any]:
        flat = self.array.reshape(-1)
        pieces = [flat[i : i + self.size] for i in range(0, len(flat), self.size)]
        return {
            "__msgpack_chunked_array__": True,
            "shape": {str(i): side for i, side in enumerate(self.array.shape)},
            "chunks": {str(i): piece for i, piece in enumerate(pieces)},
        }


def nest(arrays: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        branch = tree
        *folders, leaf = name.split("/")
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[leaf] = array
    return tree


def module(name: str, **kwargs: Any) -> dict[str, Any]:
    return {"module": "octo.model.components", "name": name, "args": [], "kwargs": kwargs}


def write_folder(
    folder: Path,
    config: dict[str, Any],
    arrays: dict[str, Any],
    statistics: dict[str, Any] | None = None,
    step: int = 300_000,
) -> Path:
    place = folder / str(step) / "default"
    place.mkdir(parents=True)
    (place / "checkpoint").write_bytes(pack(nest(arrays)))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "dataset_statistics.json").write_text(json.dumps(statistics or {}))
    return folder


def octo_json(
    *,
    width: int,
    layers: int,
    heads: int,
    mlp_dim: int,
    horizon: int,
    features: list[int],
    num_features: int,
    head: dict[str, Any],
    cameras: tuple[str, ...] = ("primary", "wrist"),
    readouts: dict[str, int] | None = None,
    version: str = "1.5",
) -> dict[str, Any]:
    """config.json as the original writes it, in the spelling of version 1.5 or 1.0."""
    new = version == "1.5"
    stem = module("SmallStem16", features=features, num_features=num_features)
    model = {
        "observation_tokenizers": {
            camera: module(
                "ImageTokenizer",
                obs_stack_keys=[f"image_{camera}"],
                task_stack_keys=[f"image_{camera}"],
                encoder=stem,
            )
            for camera in cameras
        },
        "task_tokenizers": {
            "language": module("LanguageTokenizer", encoder="t5-base", finetune_encoder=False)
        },
        "heads": {
            "action": module(
                "DiffusionActionHead",
                readout_key="readout_action",
                use_map=False,
                **{("action_horizon" if new else "pred_horizon"): head["action_horizon"]},
                **{key: value for key, value in head.items() if key != "action_horizon"},
            )
        },
        "readouts": readouts or {"action": 1},
        "token_embedding_size": width,
        "transformer_kwargs": {
            "add_position_embedding": False,
            "attention_dropout_rate": 0.0,
            "dropout_rate": 0.0,
            "mlp_dim": mlp_dim,
            "num_attention_heads": heads,
            "num_layers": layers,
        },
        "max_horizon": horizon,
    }
    if new:
        model |= {"repeat_task_tokens": True, "use_correct_attention": True}
    text = module(
        "HFTokenizer",
        tokenizer_name="t5-base",
        encode_with_model=False,
        tokenizer_kwargs={"max_length": 16, "padding": "max_length", "truncation": True},
    )
    return {"model": model, "text_processor": text, "window_size": 2, "seed": 42}
