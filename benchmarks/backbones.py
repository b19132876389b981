"""Encode latency of every backbone at batch 1 on one core, and its share of the 100 ms control period.

`python benchmarks/backbones.py docs/results/backbone_latency.json`. The embedded ones run with their weights; Octo
small and base and a ResNet run with random weights of the published sizes, which take the same time. The instruction is
embedded before, as at the worker.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

from hildaft.models.encoders import shipped_image_encoder
from hildaft.models.octo import Octo, OctoConfig
from hildaft.models.octo_layers import StandardisedConv
from hildaft.models.octo_tiny import load_octo_tiny
from hildaft.models.resnet import ResNetConfig, ResNetEncoder
from hildaft.models.smol import load_smol_tiny
from hildaft.types import CONTROL_HZ

WARM_UP, SECONDS, MOST = 3, 5.0, 200


def measure(work: Callable[[], object]) -> dict[str, float]:
    """Median and 99th percentile in ms of wall and median of CPU time."""
    with torch.inference_mode():
        for _ in range(WARM_UP):
            work()
        wall, cpu, started = [], [], time.perf_counter()
        while len(wall) < MOST and time.perf_counter() - started < SECONDS:
            before, used = time.perf_counter(), time.process_time()
            work()
            wall.append(1000 * (time.perf_counter() - before))
            cpu.append(1000 * (time.process_time() - used))
    return {
        "p50_ms": round(float(np.percentile(wall, 50)), 2),
        "p99_ms": round(float(np.percentile(wall, 99)), 2),
        "cpu_p50_ms": round(float(np.percentile(cpu, 50)), 2),
        # Of CPU time: on a shared machine the wall clock measures the neighbours.
        "budget_share_cpu": round(float(np.percentile(cpu, 50)) * CONTROL_HZ / 1000, 3),
        "passes": len(wall),
    }


def embedded() -> dict[str, Callable[[], object]]:
    """The shipped networks on images of the bolt bench's size."""
    images = {n: torch.randint(0, 256, (1, 128, 128, 3)).to(torch.uint8) for n in ("head", "wrist")}
    work: dict[str, Callable[[], object]] = {}
    for name, model in (("octo-tiny", load_octo_tiny()), ("smol-tiny", load_smol_tiny())):
        words = model.embed_instruction("place the bolt upright").detach()
        # A mapping of its own each time: the image encoder remembers the newest.
        work[name] = lambda m=model, w=words: m.encode(dict(images), w)
    keypoints = shipped_image_encoder()
    work["keypoints"] = lambda: keypoints.encode(dict(images))
    for depth in (10, 18):
        resnet = ResNetEncoder(ResNetConfig(depth=depth)).eval()
        work[f"resnet{depth}"] = lambda r=resnet: r.encode(images)
    return work


def published() -> dict[str, Callable[[], object]]:
    """Octo small and base at window 1, both cameras and with the primary one alone."""
    work: dict[str, Callable[[], object]] = {}
    sizes = {"octo-small": OctoConfig(), "octo-base": OctoConfig(width=768, heads=12, mlp_dim=3072)}
    for name, config in sizes.items():
        octo = Octo(config).eval()
        for module in octo.modules():
            if isinstance(module, StandardisedConv):
                module.fold()
        images = {n: torch.rand(1, 1, 6, s, s) * 2 - 1 for n, s in config.cameras}
        words, mask = torch.randn(1, 16, 768), torch.ones(1, 16, dtype=torch.bool)
        step = torch.ones(1, 1, dtype=torch.bool)
        work[name] = lambda o=octo, i=images, w=words, m=mask, s=step: o.embed(i, w, m, s)
    return work


def main(path: Path) -> None:
    """Measures everything and writes the record."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = {name: measure(work) for name, work in {**embedded(), **published()}.items()}
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    record = {
        "study": "encode latency at batch 1, one thread",
        "command": "python benchmarks/backbones.py docs/results/backbone_latency.json",
        "commit": commit,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}",
        "load_average": round(os.getloadavg()[0], 1),
        "figures": figures,
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, row in figures.items():
        share = 100 * row["budget_share_cpu"]
        print(
            f"{name:<11} {row['p50_ms']:>7.1f} ms, {row['cpu_p50_ms']:>6.1f} ms of CPU: {share:.1f} %"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
