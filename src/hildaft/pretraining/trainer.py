"""Trains one network on batches of frames: AdamW, cosine, resumable to the bit from its own checkpoint."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hildaft.pretraining.batches import Batch
from hildaft.pretraining.networks import LOSS_WEIGHTS
from hildaft.types import HilDaftError


@runtime_checkable
class TrainableModule(Protocol):
    """A module with losses."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The unweighted losses of a batch, by their name in `LOSS_WEIGHTS`."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How long and how fast a network learns."""

    steps: int = 5_000
    """Gradient steps; the cosine ends with the last one."""
    batch: int = 16
    """Frames per step."""
    learning_rate: float = 1e-3
    """Peak rate, after the warm-up."""
    warmup: int = 200
    """Steps of linear warm-up."""
    final_share: float = 0.02
    """Where the cosine ends, as a share of the peak."""
    weight_decay: float = 1e-4
    """Decoupled decay of AdamW."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    bfloat16: bool = False
    """Products in bfloat16, for processors that have them (AMX): a third faster there. Weights stay float32."""
    seed: int = 0
    """Start weights and order of the batches."""
    log_every: int = 50
    """Steps between lines of the log."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                msg = f"trainer {name}={getattr(self, name)}: 1 or more is allowed"
                raise HilDaftError(msg)
        for name in ("learning_rate", "clip"):
            if not 0.0 < getattr(self, name) < math.inf:
                msg = f"trainer {name}={getattr(self, name)}: a positive number is allowed"
                raise HilDaftError(msg)

    def rate(self, step: int) -> float:
        """Learning rate of a step (0 is the first)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * (self.final_share + (1 - self.final_share) * cosine)


@runtime_checkable
class BatchSource(Protocol):
    """Where batches come from."""

    def draw(self, step: int, size: int) -> Batch:
        """Batch number `step`."""
        ...


@final
class Trainer:
    """One network, its optimiser and its checkpoint."""

    def __init__(
        self, network: nn.Module, losses: TrainableModule, config: TrainerConfig, folder: Path
    ) -> None:
        """Resumes from `folder` where it holds a checkpoint; raises HilDaftError if that is damaged."""
        self._network = network
        self._losses = losses
        self._config = config
        self._checkpoint = folder / "checkpoint.safetensors"
        self._log = folder / "log.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._optimiser = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.step = 0
        if self._checkpoint.exists():
            self._resume()

    def run(self, source: BatchSource) -> None:
        """Trains to the last step."""
        sums: dict[str, float] = {}
        started, first = time.perf_counter(), self.step
        self._network.train()
        while self.step < self._config.steps:
            for name, value in self._update(source.draw(self.step, self._config.batch)).items():
                sums[name] = sums.get(name, 0.0) + value
            self.step += 1
            if self.step % self._config.log_every == 0:
                rate = (time.perf_counter() - started) / (self.step - first)
                means = {name: total / self._config.log_every for name, total in sums.items()}
                self._write_line(means | {"seconds_per_step": rate})
                sums = {}
            if self.step % self._config.checkpoint_every == 0:
                self.save()
        self.save()
        self._network.eval()

    def save(self) -> None:
        """Writes weights, moments and step; the old checkpoint stays until the new one is whole."""
        tensors = {f"network/{k}": v for k, v in self._network.state_dict().items()}
        for name, parameter in self._network.named_parameters():
            state = self._optimiser.state[parameter]
            tensors |= {f"optimiser/{name}/{k}": v for k, v in state.items()}
        partial = self._checkpoint.with_suffix(".part")
        copies = {
            name: value.detach().clone(memory_format=torch.contiguous_format)
            for name, value in tensors.items()
        }
        save_file(copies, partial, {"step": str(self.step)})
        partial.replace(self._checkpoint)

    def _update(self, batch: Batch) -> dict[str, float]:
        for group in self._optimiser.param_groups:
            group["lr"] = self._config.rate(self.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._config.bfloat16):
            losses = self._losses.losses(batch)
        total = torch.stack([LOSS_WEIGHTS[name] * value for name, value in losses.items()]).sum()
        self._optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self._network.parameters(), self._config.clip)
        self._optimiser.step()
        return {name: float(value.detach()) for name, value in losses.items()}

    def _write_line(self, values: Mapping[str, float]) -> None:
        line = {"step": self.step} | {name: round(value, 6) for name, value in values.items()}
        with self._log.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _resume(self) -> None:
        try:
            tensors = load_file(self._checkpoint)
            parts = {"network": {}, "optimiser": {}}
            for name, value in tensors.items():
                kind, rest = name.split("/", 1)
                parts[kind][rest] = value
            self._network.load_state_dict(parts["network"])
            for name, parameter in self._network.named_parameters():
                self._optimiser.state[parameter] = {
                    key: parts["optimiser"][f"{name}/{key}"]
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }
        except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            msg = f"checkpoint {self._checkpoint}: unusable ({reason}); delete it to start anew"
            raise HilDaftError(msg) from error
        self.step = int(next(iter(self._optimiser.state.values()))["step"])
