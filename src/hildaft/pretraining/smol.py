"""smol-tiny in training, by octo-tiny's recipe: the same frames, instructions, losses and probe."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hildaft.models.backbone import NETWORK_IMAGE_SIZE, save_weights
from hildaft.models.octo_tiny import OctoTiny
from hildaft.models.smol import SmolTiny, load_smol_tiny
from hildaft.pretraining.batches import SKETCH_DIM, Batch, Batches
from hildaft.pretraining.dataset import CAMERAS, KEY_POINTS, DatasetConfig, build_frames
from hildaft.pretraining.networks import patch_losses
from hildaft.pretraining.probe import probe
from hildaft.pretraining.targets import TARGET_DIM
from hildaft.pretraining.trainer import Trainer, TrainerConfig
from hildaft.types import ACTION_DIM

SMOL_FILE: Final = "smol_tiny.safetensors"
_BETA: Final = 0.1


@final
class SmolPretraining(nn.Module):
    """smol-tiny with linear readings of h, a small skill head on h, and key points from its image tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.model = SmolTiny()
        dim, width = self.model.dim, self.model.config.width
        self.read_geometry = nn.Linear(dim, TARGET_DIM)
        self.read_sketch = nn.Linear(dim, SKETCH_DIM)
        self.skill = nn.Sequential(nn.Linear(dim, 128), nn.SiLU(), nn.Linear(128, ACTION_DIM))
        self.cells = nn.ModuleDict({c: nn.Linear(width, 3 * len(KEY_POINTS)) for c in CAMERAS})

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Geometry, skill, sketch and key-point losses."""
        tokens = self.model.tokens(batch.pixels, self.model.words(batch.words), batch.word_mask)
        skill = F.smooth_l1_loss(self.skill(tokens.h), batch.action, beta=_BETA, reduction="none")
        rows = batch.has_action.float()
        geometry = F.smooth_l1_loss(self.read_geometry(tokens.h), batch.geometry, beta=_BETA)
        return {
            "geometry": geometry,
            "skill": (skill.mean(1) * rows).sum() / rows.sum().clamp(min=1.0),
            "sketch": F.mse_loss(self.read_sketch(tokens.h), batch.sketch),
            **patch_losses(self.cells, tokens.cameras, batch),
        }

    def geometry(self, batch: Batch) -> Float[Tensor, "b 77"]:
        """The geometry as read from h."""
        words = self.model.words(batch.words)
        return self.read_geometry(self.model.tokens(batch.pixels, words, batch.word_mask).h)


def train_smol(
    cache: Path,
    output: Path,
    dataset: DatasetConfig,
    trainer: TrainerConfig,
    start: Path | None = None,
) -> dict[str, Any]:
    """Trains, probes and writes smol-tiny on one thread; goes on from its checkpoint in `cache`.

    The first step starts at the weights in the folder `start` where one is given.

    Returns:
        Its content hash, steps and probe table.

    Raises:
        HilDaftError: a damaged cache or checkpoint.
    """
    torch.set_num_threads(1)
    frames, held_out = build_frames(cache, dataset)
    # The same hashed words as octo-tiny's.
    words = OctoTiny()
    torch.manual_seed(trainer.seed)
    network = SmolPretraining()
    if start is not None:
        network.model = load_smol_tiny(start / SMOL_FILE).requires_grad_(requires_grad=True)
    run = Trainer(network, network, trainer, cache / "smol_tiny")
    sides = dict.fromkeys(CAMERAS, NETWORK_IMAGE_SIZE)
    run.run(Batches(frames, words, trainer.seed, sides))
    table = probe(network, Batches(held_out, words, 1, sides), held_out)
    recipe = {"dataset": asdict(dataset), "trainer": asdict(trainer)}
    model = network.model
    path = output / SMOL_FILE
    save_weights(path, model.config_record(), model.state_dict(), recipe)
    return {
        "hash": model.hash,
        "frames": len(frames),
        "samples": trainer.steps * trainer.batch,
        "probe": table,
    }
