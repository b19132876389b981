"""The learner on a CUDA device: updates per second, eager and as one captured graph; skips where there is none.

`python benchmarks/gpu.py [--rounds 200]` prints JSON. Wall time, since the device works while the host waits; each
figure is over whole updates with the replay buffer on the device.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from common import DIMS, TASKS, Figure, spread, write_out
from hildaft.algo.dual_actor import HILDAFT, DualActor
from hildaft.data.replay import Batch, Replay, TalkTweakBatch
from synthetic import random_episode, random_table

ROWS = 84


def updates_per_second(run: Callable[[], object], rounds: int) -> list[float]:
    """Five measurements of so many updates each."""
    for _ in range(20):
        run()
    rates: list[float] = []
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(rounds):
            run()
        torch.cuda.synchronize()
        rates.append(rounds / (time.perf_counter() - start))
    return rates


def capture(step: Callable[[], object], generator: torch.Generator) -> torch.cuda.CUDAGraph:
    """The step as one graph; its random numbers go on from call to call."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        step()
    return graph


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    if not torch.cuda.is_available():
        write_out({}, {"skipped": "gpu: this machine has no CUDA device that torch can use"})
        return
    device = torch.device("cuda")
    # Metrics are read back now and then; a captured update must never.
    config = replace(HILDAFT, metrics_every=1_000_000_000)
    actor = DualActor(config, TASKS, DIMS, random_table(64), seed=0, device=device)
    replay = Replay(TASKS, DIMS, discount=0.97, device=device)
    rng = np.random.default_rng(0)
    for task in TASKS:
        for number in range(50):
            replay.add_episode(random_episode(task, "demo" if number < 20 else "online", rng))
    generator = torch.Generator(device).manual_seed(0)

    def sample() -> tuple[Batch, TalkTweakBatch]:
        return (
            replay.sample(ROWS, generator, "online"),
            replay.sample_talk_tweak(ROWS * len(TASKS), generator),
        )

    batch, talk = sample()

    def step() -> None:
        actor.update_critics(batch, "online")
        actor.update_primary(batch, "online", talk)
        actor.update_refinement(talk)

    def eager() -> None:
        nonlocal batch, talk
        batch, talk = sample()
        step()

    eager_rates = updates_per_second(eager, rounds)
    graph = capture(step, actor._generator)
    kept_batch, kept_talk = batch, talk

    def captured() -> None:
        for kept, fresh in zip((kept_batch, kept_talk), sample(), strict=True):
            for name in kept.__slots__:
                target = getattr(kept, name)
                # The tasks and `from_demos`, one row seen n times, are the same in every batch.
                if name not in ("tasks", "from_demos"):
                    target.copy_(getattr(fresh, name))
        graph.replay()

    captured_rates = updates_per_second(captured, rounds)
    figures: dict[str, Figure] = {
        "gpu.updates_per_s": spread(captured_rates, "1/s", "one captured graph per update"),
        "gpu.updates_per_s_eager": spread(eager_rates, "1/s", "eager"),
    }
    write_out(figures, {"device": torch.cuda.get_device_name()})


if __name__ == "__main__":
    main()
