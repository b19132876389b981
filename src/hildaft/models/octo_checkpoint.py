"""Loads a published Octo straight from its files: no JAX, Flax, TensorFlow or orbax.

A checkpoint folder holds `config.json`, `dataset_statistics.json` and `<step>/default/checkpoint`, the parameters as
one Flax msgpack. Every parameter has to be there, with the shape that the configuration asks for, and nothing else.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast, final

import torch
from torch import Tensor

from hildaft.models.flax_msgpack import read_flax_arrays
from hildaft.models.octo import Octo, OctoConfig
from hildaft.models.octo_head import OctoHead, OctoHeadConfig
from hildaft.models.octo_parameters import Parameters, head_weights, octo_weights, t5_weights
from hildaft.types import HilDaftError

HUB_NAMES: Final = {
    "octo-small": "rail-berkeley/octo-small-1.5",
    "octo-base": "rail-berkeley/octo-base-1.5",
    "octo-small-1.0": "rail-berkeley/octo-small",
    "octo-base-1.0": "rail-berkeley/octo-base",
}
"""Short names of the published checkpoints."""

_FILES: Final = ["config.json", "dataset_statistics.json", "*/default/checkpoint"]
MOST_LAYERS: Final = 1_000
"""Layers that a config.json is believed to have."""
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class OctoCheckpoint:
    """A published Octo, loaded and frozen."""

    octo: Octo
    head: OctoHead | None
    """The diffusion head; None where the checkpoint's head is of another kind, which h does not need."""
    t5_sizes: Mapping[str, int]
    """Sizes of the T5 encoder inside; empty where the checkpoint has none."""
    t5_tensors: Mapping[str, Tensor]
    """Its weights, by the names of `transformers`."""
    tokenizer: str
    """Name of the tokenizer the checkpoint was trained with."""
    statistics: Mapping[str, Any]
    """dataset_statistics.json: per data set, `action` and `proprio` with mean, std, ..."""
    window: int
    """Time steps per window in training."""
    step: int
    """Training step of the parameters."""
    hash: str
    """SHA-256 over the parameter file and the model's configuration."""


def load_octo_checkpoint(source: str, step: int | None = None) -> OctoCheckpoint:
    """Loads a checkpoint folder, or a hub repository by name ("octo-small", "owner/name", "hf://owner/name").

    Args:
        source: folder, or name.
        step: which of the folder's steps; the last one where not given.

    Raises:
        HilDaftError: no such checkpoint, a damaged or truncated file, an architecture this port does not have, or
            parameters that are missing, left over or of another shape (all named).
    """
    folder = find_checkpoint(source)
    config = _read_json(folder / "config.json")
    statistics = _read_json(folder / "dataset_statistics.json")
    number, path = _find_parameters(folder, step)
    parameters = Parameters(path, read_flax_arrays(path))
    fields = _Fields(folder / "config.json", config)
    octo_config, names = _octo_config(fields, parameters)
    head_config = _head_config(fields, names[0], octo_config.width)
    if head_config is None:
        parameters.ignore("heads_")

    def collect() -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, int], dict[str, Tensor]]:
        head = head_weights(parameters, head_config) if head_config else {}
        return octo_weights(parameters, octo_config, names), head, *t5_weights(parameters)

    collect()
    parameters.finish()
    octo_tensors, head_tensors, t5_sizes, t5_tensors = collect()
    # Built without storage: the tensors of the checkpoint become the parameters.
    with torch.device("meta"):
        octo = Octo(octo_config)
        head = OctoHead(head_config) if head_config else None
    octo.load_state_dict(octo_tensors, assign=True)
    if head is not None:
        head.load_state_dict(head_tensors, assign=True)
        head.requires_grad_(requires_grad=False).eval()
    return OctoCheckpoint(
        octo=octo.requires_grad_(requires_grad=False).eval(),
        head=head,
        t5_sizes=t5_sizes,
        t5_tensors=t5_tensors,
        tokenizer=str(_dig(config, "text_processor", "kwargs", "tokenizer_name") or "t5-base"),
        statistics=statistics,
        window=int(config.get("window_size", 1)),
        step=number,
        hash=_hash(path, config["model"]),
    )


def find_checkpoint(source: str) -> Path:
    """The folder of a checkpoint; fetched from the hub where `source` is a name and no folder.

    Raises:
        HilDaftError: neither a folder nor to be had from the hub.
    """
    if Path(source).is_dir():
        return Path(source)
    name = HUB_NAMES.get(source, source.removeprefix("hf://"))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) is None:
        msg = (
            f"octo checkpoint {source!r}: no such folder; give one, or a name out of "
            f"{', '.join(HUB_NAMES)} or owner/name"
        )
        raise HilDaftError(msg)
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        msg = (
            f"octo checkpoint {name!r}: fetching needs `huggingface_hub`: pip install 'hildaft[t5]'"
        )
        raise HilDaftError(msg) from error
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    # Whatever goes wrong on the way (no network, no such name, no room) is told with its reason.
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        msg = (
            f"octo checkpoint {name!r}: cannot be fetched from the hub ({reason}); "
            "download it elsewhere and give its folder"
        )
        raise HilDaftError(msg) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"octo checkpoint file {path}: {error.strerror or error}; fetch the checkpoint again"
        raise HilDaftError(msg) from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        msg = f"octo checkpoint file {path}: damaged ({reason}); fetch the checkpoint again"
        raise HilDaftError(msg) from error
    if not isinstance(content, dict):
        msg = f"octo checkpoint file {path}: a JSON object is expected; fetch the checkpoint again"
        raise HilDaftError(msg)
    return cast("dict[str, Any]", content)


def _find_parameters(folder: Path, step: int | None) -> tuple[int, Path]:
    found = {
        int(path.parents[1].name): path
        for path in folder.glob("*/default/checkpoint")
        if path.parents[1].name.isdecimal()
    }
    if not found or (step is not None and step not in found):
        there = ", ".join(map(str, sorted(found))) or "none"
        wanted = "<step>" if step is None else str(step)
        msg = (
            f"octo checkpoint {folder}: {wanted}/default/checkpoint is missing "
            f"(steps there: {there}); fetch the checkpoint again"
        )
        raise HilDaftError(msg)
    number = max(found) if step is None else step
    return number, found[number]


def _hash(path: Path, model: object) -> str:
    digest = hashlib.sha256(json.dumps(model, sort_keys=True).encode())
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


@final
class _Fields:
    """The `model` part of config.json, read with the names in the errors."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self._path = path
        model = config.get("model")
        if not isinstance(model, dict):
            raise self.refuse("model", model, "the model's settings")
        self.model = cast("dict[str, Any]", model)

    def get(self, kind: type[_T], *names: str, default: _T | None = None) -> _T:
        """The value at model.<names>; the default where it is absent and one is given."""
        value = _dig(self.model, *names)
        if value is None and default is not None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.refuse(".".join(["model", *names]), value, kind.__name__)
        return value

    def size(self, *names: str, most: int = 1 << 20, default: int | None = None) -> int:
        """A whole number from 1 to `most`, which bounds what is built before the file has been compared."""
        value = self.get(int, *names, default=default)
        if not 1 <= value <= most:
            raise self.refuse(".".join(["model", *names]), value, f"1 to {most}")
        return value

    def refuse(self, name: str, value: object, allowed: str) -> HilDaftError:
        """The error for a field this port cannot follow."""
        shown = json.dumps(value, default=str)[:120]
        return HilDaftError(f"{self._path}: {name}={shown}: {allowed} is allowed; use another Octo")


def _dig(tree: object, *names: str) -> Any:  # noqa: ANN401 - a value of a JSON file
    for name in names:
        tree = cast("dict[str, Any]", tree).get(name) if isinstance(tree, dict) else None
    return tree


def _octo_config(fields: _Fields, parameters: Parameters) -> tuple[OctoConfig, list[str]]:
    """Shape of the transformer from config.json, sizes it does not hold from the parameters; readouts, h's first."""
    width = fields.size("token_embedding_size")
    horizon = fields.size("max_horizon")
    readouts = fields.get(dict, "readouts", default={"action": 1})
    names = [str(name) for name in readouts]
    if not names or not all(type(n) is int and 0 < n <= 1 << 20 for n in readouts.values()):
        raise fields.refuse("model.readouts", readouts, "names with their number of tokens")
    wanted = str(_dig(fields.model, "heads", "action", "kwargs", "readout_key") or "")
    first = wanted.removeprefix("readout_") if wanted.startswith("readout_") else names[0]
    if first not in names:
        raise fields.refuse("model.heads.action.kwargs.readout_key", wanted, "one of the readouts")
    correct = fields.get(bool, "use_correct_attention", default=False)
    if names[0] != first and not correct:
        raise fields.refuse("model.readouts", readouts, f"{first!r} as the first under this mask")
    names.sort(key=lambda name: name != first)
    if set(fields.get(dict, "task_tokenizers")) - {"language"}:
        raise fields.refuse("model.task_tokenizers", fields.model["task_tokenizers"], "language")
    cameras: list[tuple[str, int]] = []
    stems: set[tuple[int, ...]] = set()
    goals: set[bool] = set()
    for camera in fields.get(dict, "observation_tokenizers"):
        if re.fullmatch(r"[a-z]\w*", camera) is None:
            raise fields.refuse("model.observation_tokenizers", camera, "a name in letters")
        stems.add(_stem(fields, camera))
        _, _, tokens, _ = parameters.shape(f"obs_{camera}_pos_embedding", 4)
        cameras.append((str(camera), 16 * round(tokens**0.5)))
        kernel = parameters.shape(f"{stem_name(camera)}/StdConv_0/kernel", 4)
        goals.add(kernel[2] == 6)
    if len(stems) != 1 or len(goals) != 1:
        raise fields.refuse(
            "model.observation_tokenizers", sorted(stems), "one kind of stem, all with goal or none"
        )
    *channels, stem_dim = stems.pop()
    config = OctoConfig(
        cameras=tuple(cameras),
        stem_channels=cast("tuple[int, int, int, int]", tuple(channels)),
        stem_dim=stem_dim,
        goal_images=goals.pop(),
        language_tokens=parameters.shape("task_language_pos_embedding", 3)[1],
        language_dim=parameters.shape("task_language_projection/kernel", 2)[0],
        repeat_language=fields.get(bool, "repeat_task_tokens", default=False),
        correct_attention=correct,
        readouts=int(readouts[first]),
        other_readouts=tuple((name, int(readouts[name])) for name in names[1:]),
        max_horizon=horizon,
        width=width,
        layers=fields.size("transformer_kwargs", "num_layers", most=MOST_LAYERS),
        heads=fields.size("transformer_kwargs", "num_attention_heads"),
        mlp_dim=fields.size("transformer_kwargs", "mlp_dim"),
    )
    return config, names


def stem_name(camera: str) -> str:
    """Where the parameters of a camera's stem lie."""
    return f"observation_tokenizers_{camera}/SmallStem16_0"


def _stem(fields: _Fields, camera: str) -> tuple[int, ...]:
    """Channels of a camera's stem and width of its tokens; refuses what no released Octo has."""
    at = ("observation_tokenizers", camera)
    name = ".".join(["model", *at])
    spec = fields.get(dict, *at)
    kwargs = fields.get(dict, *at, "kwargs")
    encoder = fields.get(dict, *at, "kwargs", "encoder")
    if spec.get("name") != "ImageTokenizer" or encoder.get("name") != "SmallStem16":
        found = f"{spec.get('name')} with {encoder.get('name')}"
        raise fields.refuse(name, found, "ImageTokenizer with SmallStem16")
    stem = cast("dict[str, Any]", encoder.get("kwargs") or {})
    plain = {
        "patch_size": 16,
        "use_film": False,
        "img_norm_type": "default",
        "kernel_sizes": [3, 3, 3, 3],
        "strides": [2, 2, 2, 2],
        "padding": [1, 1, 1, 1],
        "use_token_learner": False,
        "task_film_keys": [],
    }
    for key, value in {**kwargs, **stem}.items():
        if key in plain and value not in (plain[key], None):
            raise fields.refuse(f"{name}.kwargs.{key}", value, json.dumps(plain[key]))
    keys = cast("Sequence[str]", kwargs.get("obs_stack_keys") or [])
    if len(keys) != 1 or not re.match(keys[0], f"image_{camera}"):
        raise fields.refuse(f"{name}.kwargs.obs_stack_keys", list(keys), f'["image_{camera}"]')
    channels = list(stem.get("features", (32, 96, 192, 384)))
    sizes = (*channels, stem.get("num_features", 512))
    if len(sizes) != 5 or not all(type(side) is int and 0 < side <= 1 << 20 for side in sizes):
        raise fields.refuse(f"{name}.kwargs.encoder.kwargs.features", channels, "four sizes")
    return sizes


def _head_config(fields: _Fields, readout: str, width: int) -> OctoHeadConfig | None:
    at = ("heads", "action", "kwargs")
    if _dig(fields.model, "heads", "action", "name") != "DiffusionActionHead":
        return None
    given = fields.get(dict, *at)
    if given.get("use_map") or str(given.get("readout_key")).removeprefix("readout_") != readout:
        return None
    # Version 1.0 calls the horizon of the chunk pred_horizon.
    horizon = "pred_horizon" if "pred_horizon" in given else "action_horizon"
    return OctoHeadConfig(
        width=width,
        horizon=fields.size(*at, horizon, default=1),
        action_dim=fields.size(*at, "action_dim", default=7),
        time_dim=fields.size(*at, "time_dim", default=32),
        hidden=fields.size(*at, "hidden_dim", default=256),
        blocks=fields.size(*at, "num_blocks", most=MOST_LAYERS, default=3),
        steps=fields.size(*at, "diffusion_steps", default=20),
        max_action=float(given.get("max_action", 5.0)),
        layer_norm=fields.get(bool, *at, "use_layer_norm", default=True),
    )
