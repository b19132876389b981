"""What the benchmarks share: interleaved timing, ratios with their spread, the machine, the launcher's environment."""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

import torch

from hildaft.algo.dual_actor import Dims
from hildaft.cli import LAUNCH_ENVIRONMENT
from hildaft.models.products import linear

ROOT: Final = Path(__file__).parents[1]
TASKS: Final = ("upright", "pick", "assemble")
DIMS: Final = Dims(h=128, features=160, proprio=2)
"""Widths of the embedded backbone and image encoder."""
BATCH: Final = 256


@dataclass(frozen=True)
class Figure:
    """One number of `bench.json`: the median, and the quartiles of what it is the median of."""

    value: float
    unit: str
    low: float
    high: float
    against: str


def interleave(
    variants: Mapping[str, Callable[[], object]], rounds: int, *, discard: int = 2
) -> dict[str, list[float]]:
    """CPU seconds of this thread per call, every variant once per round, in turn.

    CPU time and not wall time: the machine may be busy with other things, and one thread computes.
    The first rounds warm caches and allocator and are dropped.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(rounds + discard):
        for name, run in variants.items():
            start = time.thread_time()
            run()
            if round_ >= discard:
                times[name].append(time.thread_time() - start)
    return times


def spread(values: Sequence[float], unit: str, against: str) -> Figure:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [*values] * 3
    return Figure(_round(middle), unit, _round(low), _round(high), against)


def ratio(slow: Sequence[float], fast: Sequence[float], against: str) -> Figure:
    """How many times as long the slow variant takes, round by round."""
    return spread([s / f for s, f in zip(slow, fast, strict=True)], "x", against)


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def square_products(size: int = 512) -> dict[str, Callable[[], object]]:
    """Calls that multiply two square matrices: torch's own sgemm, and the faster of its two libraries."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    return {"sgemm": lambda: left @ right, "fastest": lambda: linear(left, right)}


SGEMM_FLOPS: Final = 2 * 512**3


def minor_faults(run: Callable[[], object], repeats: int) -> float:
    """Minor page faults per call."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(repeats):
        run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / repeats


def launched(*, stock_allocator: bool = False) -> dict[str, str]:
    """The environment `hildaft` gives its processes; with the stock allocator for comparison."""
    environment = {**os.environ, **LAUNCH_ENVIRONMENT}
    if not stock_allocator:
        return environment
    return {k: v for k, v in environment.items() if not k.startswith(("MALLOC_", "GLIBC_"))}


def machine() -> str:
    """In one line."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    flags = Path("/proc/cpuinfo").read_text()
    vector = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX"
    return (
        f"{os.cpu_count()} cores {model} ({vector}), Python {platform.python_version()},"
        f" torch {torch.__version__}"
    )


def commit() -> str:
    """Of the checkout."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return git.stdout.strip() or "not a checkout"


@final
class Neighbours:
    """How busy others kept this machine's cores since this was made; load averages would count ourselves too."""

    def __init__(self) -> None:
        self._start = time.monotonic(), _busy_s(), _own_s()

    def cores(self) -> float:
        """Cores' worth of other processes' CPU time; children count as ours once they have ended."""
        then, busy, own = self._start
        taken = (_busy_s() - busy) - (_own_s() - own)
        return max(0.0, taken / (time.monotonic() - then))


def _busy_s() -> float:
    """CPU seconds that all processes of the machine have taken; the first line of /proc/stat."""
    user, nice, system, _, _, irq, softirq = map(
        int, Path("/proc/stat").read_text().split(maxsplit=8)[1:8]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def write_out(figures: Mapping[str, Figure], extra: Mapping[str, Any] | None = None) -> None:
    """Prints what `run.py` collects: figures by name, and anything worth keeping beside them."""
    json.dump(
        {
            "figures": {name: asdict(figure) for name, figure in figures.items()},
            "extra": dict(extra or {}),
        },
        sys.stdout,
        indent=1,
    )
    print()
