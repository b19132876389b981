"""Whether a backbone keeps up with the robot on this machine: load, encode and act at batch 1, measured."""

import os
import platform
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from hildaft.algo.policy import DualActorPolicy
from hildaft.types import CONTROL_HZ, NULL_COMMAND, Observation

WARM_UP, REPEATS = 5, 60
"""Passes before timing and passes timed."""
CAMERAS: Final = {"head": 256, "wrist": 128}
"""Images as the bolt bench gives them, side in px."""


@dataclass(frozen=True, kw_only=True)
class BackboneCheck:
    """What was measured; times in ms at batch 1."""

    backbone: str
    hash: str
    h_dim: int
    feature_dim: int
    load_s: float
    memory_mb: float
    """Growth of the process's peak memory while loading."""
    encode_p50_ms: float
    """Backbone and image encoder, images to h and features; the instruction was embedded before."""
    encode_p99_ms: float
    act_p50_ms: float
    act_p99_ms: float
    spread_mm: float | None
    """Standard deviation of a trained head's translation over w; None where no run was named."""
    threads: int

    @property
    def step_p99_ms(self) -> float:
        """What a control step spends on networks in a bad case."""
        return self.encode_p99_ms + self.act_p99_ms

    @property
    def budget_share(self) -> float:
        """Share of the control period that the networks take in a bad case."""
        return self.step_p99_ms * CONTROL_HZ / 1000.0

    @property
    def keeps_up(self) -> bool:
        """Whether the networks leave half of the control period to the robot and its cameras."""
        return self.budget_share <= 0.5


def peak_memory_mb() -> float:
    """The process's largest resident memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if platform.system() == "Darwin" else peak / (1 << 10)


def measure_policy(policy: DualActorPolicy, task: str) -> tuple[list[float], list[float]]:
    """Milliseconds of each of REPEATS encodes and acts, on made-up observations."""
    rng = np.random.default_rng(0)
    proprio = np.zeros(2, np.float32)
    # Encoders keep what they made of the last observation: each call gets one that it has not seen.
    observations = [
        Observation(
            images={n: rng.integers(0, 256, (s, s, 3), dtype=np.uint8) for n, s in CAMERAS.items()},
            proprio=proprio,
        )
        for _ in range(WARM_UP + REPEATS)
    ]
    encode_ms = _milliseconds(lambda step: policy.encode(observations[step], task))
    encoded = policy.encode(observations[0], task)
    return encode_ms, _milliseconds(lambda _: policy.act(encoded, NULL_COMMAND))


def _milliseconds(work: Callable[[int], object]) -> list[float]:
    taken: list[float] = []
    for step in range(WARM_UP + REPEATS):
        started = time.perf_counter()
        work(step)
        taken.append(1000.0 * (time.perf_counter() - started))
    return taken[WARM_UP:]


def check_backbone(
    name: str,
    policy: DualActorPolicy,
    task: str,
    *,
    dims: tuple[int, int],
    load_s: float,
    memory_mb: float,
    spread_mm: float | None,
) -> BackboneCheck:
    """Times a policy and puts what is known of its encoders together; `dims` are the widths of h and features."""
    encode_ms, act_ms = measure_policy(policy, task)
    return BackboneCheck(
        backbone=name,
        hash=policy.encoder_hash,
        h_dim=dims[0],
        feature_dim=dims[1],
        load_s=load_s,
        memory_mb=memory_mb,
        encode_p50_ms=float(np.percentile(encode_ms, 50)),
        encode_p99_ms=float(np.percentile(encode_ms, 99)),
        act_p50_ms=float(np.percentile(act_ms, 50)),
        act_p99_ms=float(np.percentile(act_ms, 99)),
        spread_mm=spread_mm,
        threads=torch.get_num_threads(),
    )


def render_check(check: BackboneCheck) -> Sequence[str]:
    """The lines for the terminal, the verdict last."""
    period = 1000.0 / CONTROL_HZ
    spread = (
        "not measured; name a trained run with --run"
        if check.spread_mm is None
        else f"{check.spread_mm:.2f} mm over w"
    )
    verdict = (
        f"ok: networks take {100 * check.budget_share:.0f} % of the {period:.0f} ms step (p99)"
        if check.keeps_up
        else f"too slow: networks take {100 * check.budget_share:.0f} % of the {period:.0f} ms step"
        f" (p99), more than half; {_cure()}"
    )
    return [
        f"backbone   {check.backbone}  ({os.cpu_count()} cores, {check.threads} threads for torch)",
        f"hash       {check.hash[:16]}  (both encoders and the instructions)",
        f"sizes      h {check.h_dim}, image features {check.feature_dim}",
        f"load       {check.load_s:.2f} s, {check.memory_mb:.0f} MB",
        f"encode     {check.encode_p50_ms:.1f} ms median, {check.encode_p99_ms:.1f} ms p99 (batch 1)",
        f"act        {check.act_p50_ms:.1f} ms median, {check.act_p99_ms:.1f} ms p99",
        f"spread     {spread}",
        verdict,
    ]


def _cure() -> str:
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    if load > cores:
        return f"other programs want {load:.1f} of {cores} cores: look again without them"
    return "use a smaller backbone or a faster machine"
