"""What an update costs, in figures that do not depend on the machine: products, operations, page faults."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import common
import flops
from hildaft.algo.dual_actor import HILDAFT, DualActorConfig
from hildaft.models import products
from hildaft.models.critic import CriticConfig
from learner import WORDS, Updates
from synthetic import filled_replay

ONLINE_OPERATIONS = 1180
WARMUP_OPERATIONS = 1160
"""Calls into torch's kernels per update without X4, three tasks: 5 % above what it took when this was written (1124,
1107)."""
ADVANTAGE_OPERATIONS = 64
"""What X4 may add to an online update: 5 % above the 61 it took when this was written."""


class OperationCounter(TorchDispatchMode):
    """Counts what reaches torch's kernels, backward passes included."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += 1
        return function(*arguments, **(keywords or {}))


def updates(
    tasks: int, members: int = 2, temperature: float = HILDAFT.advantage_temperature
) -> Updates:
    config: DualActorConfig = replace(
        HILDAFT,
        critic=CriticConfig(members=members),
        advantage_temperature=temperature,
        metrics_every=1_000,
    )
    names = tuple(f"task {i}" for i in range(tasks))
    built = Updates(config, filled_replay(names, capacity=512, episodes=5), names)
    # The first update of each part reports, which costs a little more.
    built.online()
    built.warmup()
    return built


@pytest.fixture
def batched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products as a machine without AVX-512 makes them: oneDNN takes large groups one by one."""
    monkeypatch.setattr(products, "ONEDNN", None)


def onednn_flops(x: tuple[int, ...], weight: tuple[int, ...], *_: object, **__: object) -> int:
    return 2 * math.prod(x) * weight[0]


ONEDNN_FLOPS = {torch.ops.mkldnn._linear_pointwise: onednn_flops}


def operations(run: Callable[[], None]) -> int:
    with OperationCounter() as counter:
        run()
    return counter.count


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("phase", ["online", "warmup"])
def test_an_update_multiplies_no_more_than_it_must(phase: str, members: int) -> None:
    built = updates(3, members)
    with FlopCounterMode(display=False, custom_mapping=ONEDNN_FLOPS) as counter:
        getattr(built, phase)()
    rows = built.rows * 3
    needed = flops.count(built.actor.config, common.DIMS, rows, rows, WORDS)
    share = counter.get_total_flops() / getattr(needed, phase)
    # Below 1 the count of what is needed would be wrong; the last layer of the critics is no matrix product to torch.
    assert 0.97 <= share <= 1.03


@pytest.mark.usefixtures("batched")
def test_neither_tasks_nor_members_add_operations_to_an_online_update() -> None:
    counts = {operations(updates(n, e).online) for n, e in ((3, 2), (5, 2), (3, 4))}
    assert len(counts) == 1


@pytest.mark.usefixtures("batched")
def test_an_online_update_takes_about_as_many_operations_as_it_did() -> None:
    plain = operations(updates(3, temperature=0.0).online)
    assert plain <= ONLINE_OPERATIONS
    assert operations(updates(3).online) - plain <= ADVANTAGE_OPERATIONS


@pytest.mark.usefixtures("batched")
def test_a_warm_up_update_takes_about_as_many_operations_as_it_did() -> None:
    assert operations(updates(3).warmup) <= WARMUP_OPERATIONS


def test_updates_reuse_their_pages_in_a_process_that_the_launcher_started() -> None:
    script = Path(common.__file__).with_name("learner.py")
    done = subprocess.run(
        [sys.executable, str(script), "--count-faults", "2"],
        env=common.launched(),
        capture_output=True,
        text=True,
        check=True,
        timeout=1200,
    )
    faults = json.loads(done.stdout)
    # With the stock allocator it is thousands, unless the process happens to have freed something larger before.
    assert faults["online"] < 100
    assert faults["warmup"] < 100
