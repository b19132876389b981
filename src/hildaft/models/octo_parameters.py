"""Octo's parameters by their published names, brought into the layout of this port.

Dense kernels are (in, out) there, convolution kernels (height, width, in, out), attention kernels split by head.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from torch import Tensor

from hildaft.models.octo import OctoConfig
from hildaft.models.octo_head import OctoHeadConfig
from hildaft.types import HilDaftError

_SHOWN: Final = 6
"""Entries of a kind that an error names; the rest are counted."""


@final
class Parameters:
    """The arrays of a checkpoint, asked for by name and shape; `finish` names all that do not fit.

    Until `finish` has passed, what is handed out has a shape and no storage, so that sizes which only a hostile
    config.json claims are never allocated.
    """

    def __init__(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        self._path = path
        # A whole variable collection holds the parameters one level down.
        wrapped = bool(arrays) and all(name.startswith("params/") for name in arrays)
        self._arrays = {
            name.removeprefix("params/") if wrapped else name: array
            for name, array in arrays.items()
        }
        self._used: set[str] = set()
        self._missing: list[str] = []
        self._misshapen: list[str] = []
        self._fits = False

    def names(self, prefix: str) -> list[str]:
        """Names below the transformer that begin so, prefix cut."""
        full = f"octo_transformer/{prefix}"
        return [name.removeprefix(full) for name in self._arrays if name.startswith(full)]

    def shape(self, name: str, sides: int) -> tuple[int, ...]:
        """Shape of a transformer's array that the configuration does not hold.

        Raises:
            HilDaftError: it is missing or has not that many sides.
        """
        array = self._arrays.get(f"octo_transformer/{name}")
        if array is None or array.ndim != sides:
            found = (
                "missing" if array is None else f"of shape {array.shape}, {sides} sides expected"
            )
            msg = (
                f"octo checkpoint {self._path}: octo_transformer/{name} is {found}; fetch it again"
            )
            raise HilDaftError(msg)
        return array.shape

    def take(self, name: str, *shape: int) -> Tensor:
        """The array of this full name as float32."""
        array = self._arrays.get(name)
        if self._fits and array is not None:
            return torch.from_numpy(array.astype(np.float32))
        self._used.add(name)
        if array is None:
            self._missing.append(name)
        elif array.shape != shape:
            self._misshapen.append(f"{name} {array.shape} instead of {shape}")
        return torch.empty(shape, device="meta")

    def ignore(self, prefix: str) -> None:
        """Leaves out what begins so."""
        self._used |= {name for name in self._arrays if name.startswith(prefix)}

    def finish(self) -> None:
        """Raises HilDaftError, naming them, where arrays were missing, left over or of another shape."""
        left_over = sorted(set(self._arrays) - self._used)
        kinds = {
            "missing": self._missing,
            "of another shape": self._misshapen,
            "left over": left_over,
        }
        told = [f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names]
        if told:
            msg = (
                f"octo checkpoint {self._path}: its parameters do not fit its config.json "
                f"({'; '.join(told)}); fetch the checkpoint again"
            )
            raise HilDaftError(msg)
        self._fits = True


def _listed(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _dense(p: Parameters, ours: str, theirs: str, inside: int, outside: int) -> dict[str, Tensor]:
    return {
        f"{ours}.weight": p.take(f"{theirs}/kernel", inside, outside).T.contiguous(),
        f"{ours}.bias": p.take(f"{theirs}/bias", outside),
    }


def _norm(p: Parameters, ours: str, theirs: str, width: int) -> dict[str, Tensor]:
    return {
        f"{ours}.weight": p.take(f"{theirs}/scale", width),
        f"{ours}.bias": p.take(f"{theirs}/bias", width),
    }


def octo_weights(p: Parameters, config: OctoConfig, readouts: list[str]) -> dict[str, Tensor]:
    """The transformer's state dict; `readouts` are the names in the order of `config`."""
    root, width, horizon = "octo_transformer/", config.width, config.max_horizon
    language = (1, config.language_tokens, width)
    read = (1, horizon, config.readouts, width)
    weights = {
        "language_positions": p.take(f"{root}task_language_pos_embedding", *language)[0],
        "readout_positions": p.take(f"{root}readout_{readouts[0]}_pos_embedding", *read)[0],
        **_dense(
            p,
            "language_projection",
            f"{root}task_language_projection",
            config.language_dim,
            width,
        ),
    }
    for name, count in config.other_readouts:
        array = p.take(f"{root}readout_{name}_pos_embedding", 1, horizon, count, width)
        weights[f"other_positions.{name}"] = array[0]
    for camera, size in config.cameras:
        tokens = (size // 16) ** 2
        position = p.take(f"{root}obs_{camera}_pos_embedding", 1, horizon, tokens, width)
        weights[f"positions.{camera}"] = position[0]
        theirs = f"{root}obs_{camera}_projection"
        weights |= _dense(p, f"projections.{camera}", theirs, config.stem_dim, width)
        weights |= _stem_weights(p, config, camera)
    transformer = f"{root}BlockTransformer_0/Transformer_0"
    for i in range(config.layers):
        weights |= _block_weights(p, config, f"blocks.{i}", f"{transformer}/encoderblock_{i}")
    return weights | _norm(p, "norm", f"{transformer}/encoder_norm", width)


def _stem_weights(p: Parameters, config: OctoConfig, camera: str) -> dict[str, Tensor]:
    theirs = f"octo_transformer/observation_tokenizers_{camera}/SmallStem16_0"
    ours, weights = f"stems.{camera}", dict[str, Tensor]()
    inside = 6 if config.goal_images else 3
    for i, outside in enumerate(config.stem_channels):
        kernel = p.take(f"{theirs}/StdConv_{i}/kernel", 3, 3, inside, outside)
        weights[f"{ours}.convs.{i}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
        weights[f"{ours}.convs.{i}.bias"] = p.take(f"{theirs}/StdConv_{i}/bias", outside)
        weights |= _norm(p, f"{ours}.norms.{i}", f"{theirs}/GroupNorm_{i}", outside)
        inside = outside
    kernel = p.take(f"{theirs}/embedding/kernel", 1, 1, inside, config.stem_dim)
    weights[f"{ours}.embedding.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
    weights[f"{ours}.embedding.bias"] = p.take(f"{theirs}/embedding/bias", config.stem_dim)
    return weights


def _block_weights(p: Parameters, config: OctoConfig, ours: str, theirs: str) -> dict[str, Tensor]:
    width, heads = config.width, config.heads
    attention = f"{theirs}/MultiHeadDotProductAttention_0"
    kernels: list[Tensor] = []
    biases: list[Tensor] = []
    for part in ("query", "key", "value"):
        kernel = p.take(f"{attention}/{part}/kernel", width, heads, width // heads)
        kernels.append(kernel.flatten(1).T)
        biases.append(p.take(f"{attention}/{part}/bias", heads, width // heads).flatten())
    out = p.take(f"{attention}/out/kernel", heads, width // heads, width)
    return {
        f"{ours}.query_key_value.weight": torch.cat(kernels),
        f"{ours}.query_key_value.bias": torch.cat(biases),
        f"{ours}.out.weight": out.flatten(0, 1).T.contiguous(),
        f"{ours}.out.bias": p.take(f"{attention}/out/bias", width),
        **_norm(p, f"{ours}.attention_norm", f"{theirs}/LayerNorm_0", width),
        **_norm(p, f"{ours}.mlp_norm", f"{theirs}/LayerNorm_1", width),
        **_dense(p, f"{ours}.mlp_in", f"{theirs}/MlpBlock_0/Dense_0", width, config.mlp_dim),
        **_dense(p, f"{ours}.mlp_out", f"{theirs}/MlpBlock_0/Dense_1", config.mlp_dim, width),
    }


def head_weights(p: Parameters, config: OctoHeadConfig) -> dict[str, Tensor]:
    """The diffusion head's state dict."""
    root = "heads_action/diffusion_model"
    time, hidden, flat = config.time_dim, config.hidden, config.horizon * config.action_dim
    reverse, encoder = f"{root}/reverse_network", f"{root}/cond_encoder"
    weights = {
        "frequencies": p.take(f"{root}/time_preprocess/kernel", time // 2, 1)[:, 0],
        **_dense(p, "time_in", f"{encoder}/Dense_0", time, 2 * time),
        **_dense(p, "time_out", f"{encoder}/Dense_1", 2 * time, time),
        **_dense(p, "first", f"{reverse}/Dense_0", time + config.width + flat, hidden),
        **_dense(p, "last", f"{reverse}/Dense_1", hidden, flat),
    }
    for i in range(config.blocks):
        theirs, ours = f"{reverse}/MLPResNetBlock_{i}", f"blocks.{i}"
        weights |= _dense(p, f"{ours}.inner", f"{theirs}/Dense_0", hidden, 4 * hidden)
        weights |= _dense(p, f"{ours}.outer", f"{theirs}/Dense_1", 4 * hidden, hidden)
        if config.layer_norm:
            weights |= _norm(p, f"{ours}.norm", f"{theirs}/LayerNorm_0", hidden)
    return weights


def t5_weights(p: Parameters) -> tuple[dict[str, int], dict[str, Tensor]]:
    """Sizes and weights of the T5 encoder inside, named as `transformers` does; both empty where there is none."""
    root = "task_tokenizers_language/hf_model/"
    names = p.names(root)
    if not names:
        return {}, {}
    blocks = {int(match[1]) for name in names if (match := re.match(r"encoder/block/(\d+)/", name))}
    first = f"{root}encoder/block/0/layer/0/SelfAttention"
    buckets, heads = p.shape(f"{first}/relative_attention_bias/embedding", 2)
    vocabulary, width = p.shape(f"{root}shared/embedding", 2)
    inner = p.shape(f"{first}/q/kernel", 2)[1]
    hidden = p.shape(f"{root}encoder/block/0/layer/1/DenseReluDense/wi/kernel", 2)[1]
    sizes = {
        "d_model": width,
        "d_kv": inner // heads,
        "d_ff": hidden,
        "num_layers": len(blocks),
        "num_heads": heads,
        "vocab_size": vocabulary,
        "relative_attention_num_buckets": buckets,
    }
    full = f"octo_transformer/{root}"
    weights = {"shared.weight": p.take(f"{full}shared/embedding", vocabulary, width)}
    bias = "encoder/block/0/layer/0/SelfAttention/relative_attention_bias"
    weights[_dotted(bias)] = p.take(f"{full}{bias}/embedding", buckets, heads)
    for i in range(len(blocks)):
        layer = f"encoder/block/{i}/layer"
        sides = {
            **{f"{layer}/0/SelfAttention/{n}": (width, inner) for n in "qkv"},
            f"{layer}/0/SelfAttention/o": (inner, width),
            f"{layer}/1/DenseReluDense/wi": (width, hidden),
            f"{layer}/1/DenseReluDense/wo": (hidden, width),
        }
        for name, shape in sides.items():
            weights[_dotted(name)] = p.take(f"{full}{name}/kernel", *shape).T.contiguous()
        for name in (f"{layer}/0/layer_norm", f"{layer}/1/layer_norm"):
            weights[_dotted(name)] = p.take(f"{full}{name}/weight", width)
    last = "encoder/final_layer_norm"
    return sizes, {**weights, _dotted(last): p.take(f"{full}{last}/weight", width)}


def _dotted(name: str) -> str:
    return f"{name.replace('/', '.')}.weight"
