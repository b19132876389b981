"""The learner's updates: against loops, re-encoding and the arithmetic floor, for more tasks, in page faults.

`python benchmarks/learner.py [--rounds 9]` prints JSON. Everything that is compared takes turns within one run, on one
thread, and counts CPU time.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final
from unittest import mock

import torch

from common import (
    BATCH,
    DIMS,
    SGEMM_FLOPS,
    TASKS,
    Figure,
    interleave,
    launched,
    minor_faults,
    ratio,
    spread,
    square_products,
    write_out,
)
from flops import count
from hildaft.algo.cloning_weights import BEGINS_AT
from hildaft.algo.dual_actor import HILDAFT, DualActor, DualActorConfig
from hildaft.algo.training import Learner, TrainingConfig
from hildaft.data.replay import Replay
from hildaft.models import products
from hildaft.models.critic import CriticConfig
from loop_learner import LoopLearner
from reencode import ReencodingLearner
from synthetic import filled_replay, random_table

WORDS: Final = 64
RATES: Final = {
    "sgemm": "the measured rate of torch's own sgemm",
    "fastest": "the measured rate of the faster of torch's two libraries",
}


class Updates:
    """Whole updates as the learner makes them, sampling included: one online, one warm-up."""

    def __init__(self, config: DualActorConfig, replay: Replay, tasks: tuple[str, ...]) -> None:
        self.replay = replay
        self.actor = _actor(config, tasks)
        self.rows = Learner(
            TrainingConfig(batch_size=BATCH), self.actor, replay, seed=0
        ).batch_per_task
        self.generator = torch.Generator().manual_seed(0)
        self._made = 0

    def _tasks(self) -> range:
        turns = self.actor.turns
        self._made += 1
        return turns[self._made % len(turns)]

    def online(self) -> None:
        """Critics, primary actor with the joint term, refinement actor, all on B rows of the tasks whose turn it is."""
        tasks = self._tasks()
        batch = self.replay.sample(self.rows, self.generator, "online", tasks)
        talk = self.replay.sample_talk_tweak(
            self.rows * len(tasks), self.generator, at_most=len(tasks), turn=self._made
        )
        self.actor.update_critics(batch, "online")
        self.actor.update_primary(batch, "online", talk)
        self.actor.update_refinement(talk)

    def warmup(self) -> None:
        """Critics with Cal-QL and primary actor."""
        batch = self.replay.sample(self.rows, self.generator, "warmup", self._tasks())
        self.actor.update_critics(batch, "warmup")
        self.actor.update_primary(batch, "warmup")


class LoopUpdates:
    """The same by `LoopLearner`."""

    def __init__(self, config: DualActorConfig, updates: Updates) -> None:
        self.updates = updates
        self.loop = LoopLearner.like(_actor(config, TASKS))

    def online(self) -> None:
        updates = self.updates
        batch = updates.replay.sample(updates.rows, updates.generator, "online")
        talk = updates.replay.sample_talk_tweak(updates.rows * len(TASKS), updates.generator)
        self.loop.update_critics(batch, warmup=False)
        self.loop.update_primary(batch, talk, warmup=False)
        self.loop.update_refinement(talk)

    def warmup(self) -> None:
        batch = self.updates.replay.sample(self.updates.rows, self.updates.generator, "warmup")
        self.loop.update_critics(batch, warmup=True)
        self.loop.update_primary(batch, None, warmup=True)


def _actor(config: DualActorConfig, tasks: tuple[str, ...]) -> DualActor:
    actor = DualActor(config, tasks, DIMS, random_table(WORDS), seed=0)
    # Most online updates of a run come after X4 has begun, so those are measured.
    state = actor.state()
    actor.load_state(state | {"updates": torch.full_like(state["updates"], BEGINS_AT)})
    return actor


def against_loop(rounds: int, figures: dict[str, Figure], extra: dict[str, Any]) -> None:
    """E = 2 and 10, with the share of the floor, all in turn."""
    replay = filled_replay(TASKS)
    for members in (2, 10):
        config = replace(HILDAFT, critic=CriticConfig(members=members))
        updates = Updates(config, replay, TASKS)
        loop = LoopUpdates(config, updates)
        variants: dict[str, Callable[[], object]] = {
            "online": updates.online,
            "online_loop": loop.online,
            "warmup": updates.warmup,
            "warmup_loop": loop.warmup,
            **square_products(),
        }
        times = interleave(variants, rounds if members == 2 else max(3, rounds // 3))
        rows = updates.rows * len(TASKS)
        flops = count(config, DIMS, rows, rows, WORDS)
        suffix = "" if members == 2 else "_e10"
        against = "the same update as loops over tasks, members and actions"
        for phase, needed in (("online", flops.online), ("warmup", flops.warmup)):
            figures[f"learner.{phase}_vs_loop{suffix}"] = ratio(
                times[f"{phase}_loop"], times[phase], against
            )
            for figure, rate in (("floor", "sgemm"), ("limit", "fastest")):
                shares = [
                    100 * needed / (SGEMM_FLOPS / gemm) / taken
                    for gemm, taken in zip(times[rate], times[phase], strict=True)
                ]
                figures[f"learner.{phase}_{figure}_share{suffix}"] = spread(
                    shares, "%", f"{needed / 1e9:.2f} GFLOP at {RATES[rate]}"
                )
            extra[f"{phase}{suffix}_ms"] = spread([1e3 * t for t in times[phase]], "ms", "").value
        for rate in RATES:
            extra[f"{rate}_gflops{suffix}"] = spread(
                [SGEMM_FLOPS / t / 1e9 for t in times[rate]], "GFLOP/s", ""
            ).value


def against_reencoding(rounds: int, figures: dict[str, Figure], extra: dict[str, Any]) -> None:
    """The update that encodes its images anew."""
    updates = Updates(HILDAFT, filled_replay(TASKS), TASKS)
    reencoding = ReencodingLearner(updates.actor, updates.rows)
    times = interleave({"cached": updates.online, "reencode": reencoding.online}, rounds, discard=1)
    figures["learner.online_vs_reencode"] = ratio(
        times["reencode"],
        times["cached"],
        "the same update that runs a frozen ResNet-10 on shifted 128x128 images of two cameras",
    )
    extra["reencode_s"] = spread(times["reencode"], "s", "").value


def task_scaling(rounds: int, figures: dict[str, Figure], extra: dict[str, Any]) -> None:
    """The online update at fixed B for more and more tasks; 30 as they are by default, and all in every update."""
    updates: dict[str, Callable[[], object]] = {}
    for n in (1, 3, 10, 30):
        tasks = tuple(f"task {i}" for i in range(n))
        replay = filled_replay(tasks, capacity=4096)
        updates[str(n)] = Updates(HILDAFT, replay, tasks).online
    together = replace(HILDAFT, tasks_per_update=0)
    updates["30 at once"] = Updates(together, replay, tasks).online
    times = interleave(updates, rounds)
    figures["learner.tasks30_at_once_vs_3"] = ratio(
        times["30 at once"], times["3"], "3 tasks at the same B; 30 tasks in every update here"
    )
    for n in ("1", "10", "30"):
        figures[f"learner.tasks{n}_vs_3"] = ratio(
            times[n], times["3"], f"3 tasks at the same B; {n} tasks here, as by default"
        )
    extra["tasks_ms"] = {
        n: spread([1e3 * t for t in taken], "ms", "").value for n, taken in times.items()
    }


def products_gain(rounds: int, figures: dict[str, Figure]) -> None:
    """What `hildaft.models.products` saves: the same updates with every product by MKL."""
    if products.ONEDNN is None:
        return
    updates, onednn = Updates(HILDAFT, filled_replay(TASKS), TASKS), products.ONEDNN

    def by_mkl(update: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            with mock.patch.object(products, "ONEDNN", None):
                update()

        return run

    times = interleave(
        {
            "online": updates.online,
            "online_mkl": by_mkl(updates.online),
            "warmup": updates.warmup,
            "warmup_mkl": by_mkl(updates.warmup),
        },
        rounds,
    )
    assert products.ONEDNN is onednn
    for phase in ("online", "warmup"):
        figures[f"learner.{phase}_vs_mkl"] = ratio(
            times[f"{phase}_mkl"], times[phase], "the same update with every product by MKL"
        )


def page_faults(figures: dict[str, Figure], extra: dict[str, Any]) -> None:
    """Faults per update, in processes as the launcher starts them and in stock ones."""
    counted: dict[str, dict[str, float]] = {}
    for members in (2, 10):
        for name in ("launcher", "stock"):
            output = subprocess.run(
                [sys.executable, __file__, "--count-faults", str(members)],
                env=launched(stock_allocator=name == "stock"),
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            counted[f"{name}, E = {members}"] = json.loads(output)
    extra["faults_per_update"] = counted
    shares = [
        100 * counted[f"launcher, E = {e}"][phase] / max(counted[f"stock, E = {e}"][phase], 1.0)
        for e in (2, 10)
        for phase in ("online", "warmup")
    ]
    figures["learner.fault_share"] = Figure(
        max(shares), "%", min(shares), max(shares), "the stock allocator; the worst of four updates"
    )


def count_faults(members: int) -> dict[str, float]:
    """Minor faults and CPU milliseconds per update in this process, once it has warmed up."""
    config = replace(HILDAFT, critic=CriticConfig(members=members))
    updates = Updates(config, filled_replay(TASKS), TASKS)
    result: dict[str, float] = {}
    for name, run in (("online", updates.online), ("warmup", updates.warmup)):
        for _ in range(10):
            run()
        start = time.thread_time()
        result[name] = minor_faults(run, 10)
        result[f"{name}_ms"] = round(100 * (time.thread_time() - start), 2)
    return result


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count-faults", type=int, metavar="E", help="only that; used by itself")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.count_faults:
        print(json.dumps(count_faults(arguments.count_faults)))
        return
    figures: dict[str, Figure] = {}
    extra: dict[str, Any] = {"rows_per_update": 2 * (BATCH // 6) * 3, "rounds": arguments.rounds}
    against_loop(arguments.rounds, figures, extra)
    task_scaling(max(3, arguments.rounds // 2), figures, extra)
    products_gain(arguments.rounds, figures)
    page_faults(figures, extra)
    against_reencoding(3, figures, extra)
    write_out(figures, extra)


if __name__ == "__main__":
    main()
