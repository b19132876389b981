"""What a linear layer reads off octo-tiny's h, in millimetres, beside what the image encoder reads.

python benchmarks/probe_h.py --cache FOLDER --out docs/results/probe_h.json

One linear layer is fitted to h on training frames of `hildaft pretrain --cache FOLDER`, to convergence, and read on
its held-out frames and on fresh frames of robot A's bench as a run sees it, without jitter. The heads that pretraining
itself reports are trained along with the network and end a little short of that.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from hildaft.models.encoders import shipped_image_encoder
from hildaft.models.octo_tiny import load_octo_tiny
from hildaft.pretraining.dataset import CAMERAS, DatasetConfig, build_frames, draw_frame
from hildaft.pretraining.probe import table_of
from hildaft.pretraining.targets import geometry_targets, lengths, lengths_from_targets
from hildaft.robots.bolt_sim.scene import MAX_BOLTS, BoltScene

FITTED = 12_000
"""Training frames that the linear layer is fitted to."""
FRESH = 3_000
"""Frames of robot A's bench."""
INSTRUCTION = "lift the bolt"
"""Words of every frame."""

Images = Callable[[Int[np.ndarray, " b"]], dict[str, UInt8[np.ndarray, "b s s 3"]]]


@dataclass(frozen=True)
class Arguments:
    """What is read."""

    cache: Path
    """Folder of `hildaft pretrain`'s frames; rendered there where missing."""
    out: Path
    """JSON file of the result."""


def main(given: Arguments) -> None:
    """Fits, reads and writes."""
    torch.set_num_threads(1)
    backbone, encoder = load_octo_tiny(), shipped_image_encoder()
    words = backbone.embed_instruction(INSTRUCTION)

    def read(images: Images, count: int) -> tuple[Tensor, Tensor]:
        hs: list[Tensor] = []
        features: list[Tensor] = []
        for first in range(0, count, 40):
            rows = np.arange(first, min(first + 40, count))
            seen = {name: torch.from_numpy(image) for name, image in images(rows).items()}
            with torch.no_grad():
                hs.append(backbone.encode(seen, words))
                features.append(encoder.encode(seen))
        return torch.cat(hs), torch.cat(features)

    frames, held_out = build_frames(given.cache, DatasetConfig())
    chosen = np.sort(np.random.default_rng(5).permutation(len(frames))[:FITTED])
    h, _ = read(lambda rows: frames.images(chosen[rows]), len(chosen))
    layer = fit(h, geometry_targets({name: rows[chosen] for name, rows in frames.labels.items()}))
    fresh, labels = bench_frames(FRESH)
    record = {"octo_tiny": backbone.hash, "image_encoder": encoder.hash, "fitted": FITTED}
    for name, images, truth in (
        ("held_out", held_out.images, held_out.labels),
        ("fresh, A", lambda rows: {c: fresh[c][rows] for c in CAMERAS}, labels),
    ):
        h, features = read(images, len(truth["held"]))
        for reader, predicted in (("h", layer(h).detach()), ("image encoder", features)):
            error = lengths_from_targets(predicted.numpy()) - lengths(truth)
            record[f"{name}: {reader}"] = table_of(1000 * lengths(truth), 1000 * error, truth)
    given.out.write_text(json.dumps(record, indent=1) + "\n")


def fit(h: Float[Tensor, "n d"], wanted: Float[np.ndarray, "n 77"]) -> nn.Linear:
    """The linear layer of least smooth L1 error (beta 0.1, as in pretraining), from that of least squares."""
    target = torch.from_numpy(wanted)
    layer = nn.Linear(h.shape[1], target.shape[1])
    bias = torch.ones(len(h), 1)
    solution = torch.linalg.lstsq(torch.cat([h, bias], 1), target).solution
    with torch.no_grad():
        layer.weight.copy_(solution[:-1].T)
        layer.bias.copy_(solution[-1])
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimiser.zero_grad()
        value = F.smooth_l1_loss(layer(h), target, beta=0.1)
        value.backward()
        return float(value.detach())

    optimiser.step(loss)
    return layer


def bench_frames(
    count: int,
) -> tuple[dict[str, UInt8[np.ndarray, "n s s 3"]], dict[str, np.ndarray]]:
    """Images and labels of scenes on robot A's bench that no pretraining saw."""
    scene = BoltScene("A", MAX_BOLTS)
    images: dict[str, list[np.ndarray]] = {name: [] for name in CAMERAS}
    rows: list[dict[str, np.ndarray]] = []
    for index in range(count):
        seen, labels = draw_frame(scene, np.random.default_rng([77, index]), 0.0)
        rows.append(labels | {"elsewhere": np.array(False)})
        for name in CAMERAS:
            images[name].append(seen[name])
    scene.close()
    stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {name: np.stack(shots) for name, shots in images.items()}, stacked


if __name__ == "__main__":
    main(tyro.cli(Arguments))
