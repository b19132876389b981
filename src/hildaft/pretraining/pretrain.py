"""`hildaft pretrain`: frames, octo-tiny, smol-tiny and the image encoder, probe, weight files."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from hildaft.models.backbone import (
    NETWORK_IMAGE_SIZE,
    ImageEncoder,
    load_weights,
    save_weights,
)
from hildaft.models.encoders import ENCODER_FILE, load_image_encoder
from hildaft.models.octo_tiny import OCTO_FILE, OctoTiny, load_octo_network
from hildaft.pretraining.batches import Batches
from hildaft.pretraining.dataset import CAMERAS, DatasetConfig, Frames, build_frames
from hildaft.pretraining.decoder import DecoderConfig, train_decoder
from hildaft.pretraining.networks import EncoderPretraining, OctoPretraining
from hildaft.pretraining.probe import probe
from hildaft.pretraining.readout import ReadoutConfig, add_block, train_readout
from hildaft.pretraining.smol import SMOL_FILE, train_smol
from hildaft.pretraining.trainer import Trainer, TrainerConfig
from hildaft.types import HilDaftError

# Without these every large activation is a fresh mapping, and page faults cost a third of the time.
_ALLOCATOR: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """The whole pretraining: one seed, one recipe."""

    cache: Path
    """Folder for frames, logs and checkpoints (about 250 KB per frame); outside the repository."""
    output: Path
    """Folder that receives octo_tiny.safetensors, smol_tiny.safetensors and image_encoder.safetensors."""
    start: Path | None = None
    """Folder of weights, named as in `output`, to go on from; random ones where none is given."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    """What is rendered."""
    octo: TrainerConfig = field(default_factory=lambda: TrainerConfig(steps=4_800))
    """Training of octo-tiny."""
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    """Second stage of octo-tiny: one more block, at the readout token."""
    smol: TrainerConfig = field(default_factory=lambda: TrainerConfig(steps=5_500))
    """Training of smol-tiny."""
    encoder: TrainerConfig = field(default_factory=lambda: TrainerConfig(steps=30_000))
    """Training of the image encoder."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """Second stage of the image encoder: its decoder alone, on what its trunk gives."""


def pretrain(config: PretrainConfig) -> dict[str, Any]:
    """Runs everything, two networks at a time in processes of one thread, and writes the weights.

    octo-tiny comes last: one of its tokens is what the image encoder reads.

    Returns:
        For each network: its content hash, steps, seconds and probe table.

    Raises:
        HilDaftError: `start` lacks one of the weight files, or `output` cannot be made.
    """
    _check_folders(config)
    build_frames(config.cache, config.dataset)
    os.environ.update({k: os.environ.get(k, v) for k, v in _ALLOCATOR.items()})
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first = pool.apply_async(train_encoder, (config,))
        parts = (config.cache, config.output, config.dataset, config.smol, config.start)
        beside = pool.apply_async(train_smol, parts)
        encoder = first.get()
        octo = pool.apply(train_octo, (config,))
        smol = beside.get()
    report = {"octo_tiny": octo, "image_encoder": encoder, "smol_tiny": smol}
    (config.cache / "report.json").write_text(json.dumps(report, indent=1))
    return report


def _check_folders(config: PretrainConfig) -> None:
    """What would otherwise fail after an hour of training."""
    if config.start is not None:
        for name in (OCTO_FILE, SMOL_FILE, ENCODER_FILE):
            load_weights(config.start / name)
    try:
        config.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"pretrain output={config.output}: cannot be made ({error.strerror}); name a folder that can"
        raise HilDaftError(msg) from error


def train_octo(config: PretrainConfig) -> dict[str, Any]:
    """Trains, probes and writes octo-tiny: all of it, then a last block alone; `output` holds the image encoder."""
    reader = load_image_encoder(config.output / ENCODER_FILE)
    sides = dict.fromkeys(CAMERAS, NETWORK_IMAGE_SIZE)
    frames, held_out, batches, test = _open(config, config.octo, sides, reader)
    network = OctoPretraining()
    if config.start is not None:
        model = load_octo_network(config.start / OCTO_FILE)
        network.model = model.requires_grad_(requires_grad=True)
    network.model.reader = reader.hash
    trainer = Trainer(network, network, config.octo, config.cache / "octo_tiny")
    seconds = _timed(lambda: trainer.run(batches))
    before = probe(network, test, held_out)
    if config.readout.steps:
        if config.start is None:
            network = add_block(network)
        seconds += _timed(lambda: train_readout(network, batches, config.readout))
    table = probe(network, test, held_out)
    model = network.model
    recipe = {
        "dataset": asdict(config.dataset),
        "trainer": asdict(config.octo),
        "readout": asdict(config.readout),
    }
    path = config.output / OCTO_FILE
    save_weights(path, model.config_record(), model.state_dict(), recipe)
    report = _report(model.hash, config.octo, len(frames), seconds, table)
    return report | {"probe_first_stage": before}


def train_encoder(config: PretrainConfig) -> dict[str, Any]:
    """Trains, probes and writes the image encoder: all of it, then its decoder alone."""
    frames, held_out, batches, test = _open(config, config.encoder, CAMERAS)
    network = EncoderPretraining()
    if config.start is not None:
        model = load_image_encoder(config.start / ENCODER_FILE)
        network.model = model.requires_grad_(requires_grad=True)
    trainer = Trainer(network, network, config.encoder, config.cache / "image_encoder")
    seconds = _timed(lambda: trainer.run(batches))
    before = probe(network, test, held_out)
    seconds += _timed(lambda: train_decoder(network, batches, config.decoder))
    table = probe(network, test, held_out)
    model = network.model
    recipe = {
        "dataset": asdict(config.dataset),
        "trainer": asdict(config.encoder),
        "decoder": asdict(config.decoder),
    }
    path = config.output / ENCODER_FILE
    save_weights(path, model.config_record(), model.state_dict(), recipe)
    report = _report(model.hash, config.encoder, len(frames), seconds, table)
    return report | {"probe_first_stage": before}


def _open(
    config: PretrainConfig,
    trainer: TrainerConfig,
    sides: Mapping[str, int],
    reader: ImageEncoder | None = None,
) -> tuple[Frames, Frames, Batches, Batches]:
    torch.set_num_threads(1)
    frames, held_out = build_frames(config.cache, config.dataset)
    words = OctoTiny()
    torch.manual_seed(trainer.seed)
    batches = Batches(frames, words, trainer.seed, sides, reader)
    return frames, held_out, batches, Batches(held_out, words, 1, sides, reader)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _report(
    content: str, trainer: TrainerConfig, frames: int, seconds: float, table: dict[str, Any]
) -> dict[str, Any]:
    return {
        "hash": content,
        "frames": frames,
        "samples": trainer.steps * trainer.batch,
        "seconds": round(seconds, 1),
        "probe": table,
    }
