import json
import math
import resource
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hildaft.algo.checkpoint import (
    KEEP,
    list_checkpoints,
    read_checkpoint,
    read_newest,
    write_checkpoint,
)
from hildaft.types import HilDaftError
from killing import kill_while_writing


def state(seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(7, 5, generator=generator)
    return {
        "actor.weight": weight,
        "actor.transposed": weight.T,
        "step": torch.tensor(seed, dtype=torch.int64),
        "half": weight.to(torch.bfloat16),
        "flags": weight > 0,
        "empty": torch.zeros(0, 3),
        "odd": torch.tensor([math.nan, -math.inf, -0.0, 1e-45]),
        "rng": generator.get_state(),
    }


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert other[name].dtype == tensor.dtype, name
        assert other[name].shape == tensor.shape, name
        raw = tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor
        back = other[name].reshape(-1).view(torch.uint8) if tensor.numel() else other[name]
        assert torch.equal(raw, back), name


def test_every_bit_comes_back(tmp_path):
    meta = {"episodes": 3, "wall_s": 0.1 + 0.2, "names": ["a", None, True], "deep": {"x": {}}}
    path = write_checkpoint(tmp_path, state(), meta, step=1234)
    assert path == tmp_path / "step-00001234"
    checkpoint = read_newest(tmp_path)
    assert_same(state(), checkpoint.tensors)
    assert checkpoint.meta == meta
    assert (checkpoint.step, checkpoint.path, checkpoint.warning) == (1234, path, None)


def test_shared_memory_is_written_as_if_it_were_separate(tmp_path):
    weight = torch.arange(6.0)
    write_checkpoint(tmp_path, {"a": weight, "b": weight, "c": weight[2:4]}, {}, step=1)
    assert_same({"a": weight, "b": weight, "c": weight[2:4]}, read_newest(tmp_path).tensors)


def test_the_newest_three_are_kept(tmp_path):
    for step in (900, 1000, 99_999_999, 100_000_000, 5):
        write_checkpoint(tmp_path, state(), {}, step=step)
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == ["step-00001000", "step-99999999", "step-100000000"]
    assert KEEP == 3


def test_the_same_step_again_overwrites_nothing(tmp_path):
    paths = [write_checkpoint(tmp_path, state(seed), {}, step=7) for seed in range(5)]
    assert len(set(paths)) == 5
    assert list_checkpoints(tmp_path) == paths[-3:]
    assert_same(state(4), read_newest(tmp_path).tensors)


def damage(path, *, how):
    file = path / ("meta.json" if how.startswith("meta") else "state.safetensors")
    data = file.read_bytes()
    if how.endswith("missing"):
        file.unlink()
    elif how.endswith("short"):
        file.write_bytes(data[: len(data) // 2])
    elif how == "meta changed":
        document = json.loads(data)
        document["meta"]["episodes"] = 99
        file.write_text(json.dumps(document))
    else:
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


DAMAGES = ["state flipped", "state short", "state missing", "meta short", "meta missing"]


@pytest.mark.parametrize("how", [*DAMAGES, "meta changed"])
def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(tmp_path, how):
    write_checkpoint(tmp_path, state(1), {"episodes": 1}, step=1)
    newest = write_checkpoint(tmp_path, state(2), {"episodes": 2}, step=2)
    damage(newest, how=how)
    checkpoint = read_newest(tmp_path)
    assert checkpoint.step == 1
    assert_same(state(1), checkpoint.tensors)
    assert "step-00000002" in checkpoint.warning
    assert "continuing from step-00000001" in checkpoint.warning
    assert "\n" not in checkpoint.warning


@settings(max_examples=60, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_of_the_state_is_always_found(tmp_path_factory, where, bit):
    folder = tmp_path_factory.mktemp("flip")
    path = write_checkpoint(folder, {"a": torch.arange(9.0)}, {}, step=1)
    file = path / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[int(where * len(data))] ^= 1 << bit
    file.write_bytes(data)
    with pytest.raises(HilDaftError, match="digest"):
        read_checkpoint(path)


def test_none_whole_or_none_at_all_is_one_clear_line(tmp_path):
    with pytest.raises(HilDaftError, match="no checkpoint in"):
        read_newest(tmp_path / "absent")
    for step in (1, 2):
        damage(write_checkpoint(tmp_path, state(), {}, step=step), how="state short")
    with pytest.raises(HilDaftError, match="no whole checkpoint") as caught:
        read_newest(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_newer_format_asks_for_an_update(tmp_path):
    path = write_checkpoint(tmp_path, state(), {}, step=1)
    document = json.loads((path / "meta.json").read_text())
    document["format"] = 2
    (path / "meta.json").write_text(json.dumps(document))
    with pytest.raises(HilDaftError, match="update HiL-DAFT"):
        read_newest(tmp_path)


def test_a_full_disk_leaves_earlier_checkpoints_intact(tmp_path):
    write_checkpoint(tmp_path, state(1), {}, step=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        with pytest.raises(HilDaftError, match="free space"):
            write_checkpoint(tmp_path, {"big": torch.zeros(100_000)}, {}, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert_same(state(1), read_newest(tmp_path).tensors)


WRITER = """
import sys
from pathlib import Path
import torch
from hildaft.algo.checkpoint import write_checkpoint
torch.set_num_threads(1)
start = int(sys.argv[2])
for step in range(start, 10**9):
    tensors = {"weight": torch.full((300_000,), float(step))}
    write_checkpoint(Path(sys.argv[1]), tensors, {"step": step}, step=step)
    print(step, flush=True)
"""


def test_a_kill_in_the_middle_leaves_a_whole_checkpoint(tmp_path):
    newest = 0
    for _ in range(2):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(newest + 1)],
            stdout=subprocess.PIPE,
            text=True,
        )
        announced = int(writer.stdout.readline())
        assert kill_while_writing(writer, tmp_path)
        rest, _ = writer.communicate()
        announced = max([announced, *map(int, rest.split())])
        checkpoint = read_newest(tmp_path)
        assert checkpoint.warning is None
        assert checkpoint.step in (announced, announced + 1)
        assert checkpoint.meta == {"step": checkpoint.step}
        assert torch.all(checkpoint.tensors["weight"] == float(checkpoint.step))
        newest = checkpoint.step
    write_checkpoint(tmp_path, state(), {}, step=newest + 1)
    assert list(tmp_path.glob(".writing-*")) == []
