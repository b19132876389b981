import errno
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from hildaft.data import episode_file
from hildaft.data.episode_file import serialise_episode
from hildaft.data.episodes import EpisodeStore
from hildaft.types import Episode, HilDaftError
from killing import kill_while_writing


def random_episode(seed=0, steps=5, cameras=("head",), *, source="online", task="pick", width=8):
    rng = np.random.default_rng(seed)

    def normal(rows, columns):
        return rng.normal(size=(rows, columns)).astype(np.float32)

    is_intervention = rng.random(steps) < 0.5
    human = normal(steps, 7)
    human[~is_intervention] = np.nan
    return Episode(
        task=task,
        source=source,
        robot="A",
        seed=int(rng.integers(2**32)),
        policy_version=int(rng.integers(-1, 99)),
        success=bool(rng.random() < 0.5),
        h=normal(steps + 1, width),
        features=normal(steps + 1, width),
        proprio=normal(steps + 1, 2),
        policy_action=normal(steps, 7),
        human_action=human,
        executed_action=normal(steps, 7),
        is_intervention=is_intervention,
        spoken=rng.integers(0, 27, steps),
        refinement=rng.integers(0, 27, steps),
        displacement_m=normal(steps, 3),
        reward=rng.random(steps).astype(np.float32),
        terminated=rng.random(steps) < 0.5,
        truncated=rng.random(steps) < 0.5,
        images={
            name: tuple(rng.bytes(int(rng.integers(0, 300))) for _ in range(steps + 1))
            for name in cameras
        },
        encoder_hash="f00d",
    )


def assert_same(one, other):
    for item in fields(Episode):
        a, b = getattr(one, item.name), getattr(other, item.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, item.name
            np.testing.assert_array_equal(a, b, err_msg=item.name)
        else:
            assert a == b, item.name


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 60),
    cameras=st.sets(st.text(min_size=1, max_size=8), max_size=3),
    source=st.sampled_from(["demo", "online", "eval"]),
    task=st.text(max_size=12),
)
def test_every_episode_comes_back_exactly(seed, steps, cameras, source, task):
    episode = random_episode(seed, steps, tuple(sorted(cameras)), source=source, task=task)
    with tempfile.TemporaryDirectory() as folder:
        store = EpisodeStore(Path(folder))
        assert store.append(episode) == 0
        assert_same(store.read(0), episode)
        [summary] = store.summaries()
        assert (summary.task, summary.source, summary.seed) == (task, source, episode.seed)
        assert summary.interventions == episode.is_intervention.sum()
        assert summary.steps == steps


def test_numbers_grow_and_iteration_starts_anywhere(tmp_path):
    store = EpisodeStore(tmp_path)
    assert [store.append(random_episode(seed)) for seed in range(4)] == [0, 1, 2, 3]
    assert len(store) == 4
    assert [index for index, _ in store.iterate(since=2)] == [2, 3]
    assert [summary.index for summary in store.summaries(since=3)] == [3]
    assert (tmp_path / "000003-pick-online.safetensors").exists()
    assert EpisodeStore(tmp_path).append(random_episode()) == 4


def forged(header=None, **columns):
    """A file whose checksum is right although a peer made it up."""
    data = serialise_episode(random_episode(steps=3))
    length = int.from_bytes(data[:8], "little")
    fields = json.loads(data[8 : 8 + length])["__metadata__"] | (header or {})
    columns = load_safetensors(data) | {
        name.replace("__", "/"): column for name, column in columns.items()
    }
    fields["crc32"] = f"{episode_file._checksum(fields, columns):08x}"
    return save_safetensors(columns, fields)


def offsets(*values, dtype=np.int64):
    return {
        "image__head": np.zeros(1_000, np.uint8),
        "image_offsets__head": np.array(values, dtype),
    }


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (offsets(0, 1_000, 0, 1_000, 1_000), "do not run from"),
        (offsets(0, 2**62, -(2**63), 2**62, 1_000), "do not run from"),
        (offsets(1, 2, 3, 4, 1_000), "do not run from"),
        (offsets(0, 1, 2, 3, 999), "do not run from"),
        (offsets(0, 1, 2, 1_000), "one image per observation"),
        (offsets(), "one image per observation"),
        (offsets(0, 1, 2, 3, 1_000, dtype=np.float64), "offsets are float64"),
        (offsets([0, 1], [2, 3], [4, 5], [6, 7], [8, 1_000]), r"offsets are int64\[5, 2\]"),
        (offsets(0, 1, 2, 3, 1_000) | {"image__head": np.zeros(1_000, np.int8)}, "images int8"),
        ({"image_offsets__left": np.zeros(5, np.int64)}, "image/left.*missing"),
        ({"reward": np.zeros((), np.float32)}, r"steps=3, reward is \[\]"),
        ({"reward": np.zeros(4, np.float32)}, r"steps=3, reward is \[4\]"),
        (
            {"is_intervention": np.ones(3, bool), "header": {"interventions": "0"}},
            "interventions=0",
        ),
        ({"header": {"steps": "9"}}, "steps=9"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_before_it_is_cut(columns, said):
    with pytest.raises(HilDaftError, match=said) as caught:
        episode_file.parse_episode(0, Path("x"), forged(**columns))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"__metadata__": {"format": "hildaft.episode", "schema": "1", "seed": [1]}}',
        b'{"__metadata__": {"format": "hildaft.episode", "schema": 1}}',
        b'{"__metadata__": {}, "h": {"data_offsets": [0, 1e999]}}',
        b'{"__metadata__": 1}',
        b'{"__metadata__": {"format": "hildaft.episode", "schema": "1", "source": "\\ud800"}}',
    ],
    ids=range(7),
)
def test_a_header_of_another_form_is_refused(header):
    data = len(header).to_bytes(8, "little") + header
    with pytest.raises(HilDaftError, match="is damaged") as caught:
        episode_file.parse_episode(0, Path("x"), data)
    assert str(caught.value).encode()


def test_summaries_read_the_header_alone(tmp_path):
    store = EpisodeStore(tmp_path)
    store.append(random_episode())
    [path] = tmp_path.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert store.summaries()[0].index == 0
    with pytest.raises(HilDaftError, match="checksum"):
        store.read(0)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_one_flipped_bit_is_always_found(data):
    with tempfile.TemporaryDirectory() as name:
        store = EpisodeStore(Path(name))
        store.append(random_episode(width=2, steps=2, cameras=()))
        [path] = Path(name).glob("*.safetensors")
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        with pytest.raises(HilDaftError) as caught:
            store.read(0)
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_named_and_can_be_set_aside(tmp_path, share):
    store = EpisodeStore(tmp_path)
    for seed in range(3):
        store.append(random_episode(seed))
    damaged = tmp_path / "000001-pick-online.safetensors"
    damaged.write_bytes(damaged.read_bytes()[: int(share * damaged.stat().st_size)])
    with pytest.raises(HilDaftError, match=r"000001-pick-online.*move it out of the folder"):
        list(store.iterate())
    with pytest.raises(HilDaftError, match="000001-pick-online"):
        store.summaries()
    [problem] = store.verify()
    assert problem.path == damaged
    content = damaged.read_bytes()
    assert store.set_aside(problem.path).read_bytes() == content
    assert store.verify() == []
    assert store.indices == (0, 2)
    assert store.append(random_episode()) == 3


def test_the_number_of_a_file_set_aside_is_not_given_out_again(tmp_path):
    store = EpisodeStore(tmp_path)
    store.append(random_episode(0))
    store.append(random_episode(1))
    store.set_aside(tmp_path / "000001-pick-online.safetensors")
    assert store.append(random_episode(2)) == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.safetensors", b"x", "its name is not like"),
        ("000001-pick-online.safetensors", b"no episode at all", "damaged or no episode file"),
        ("000000-upright-demo.safetensors", b"", "taken by 000000"),
    ],
)
def test_a_foreign_file_is_named(tmp_path, name, content, said):
    store = EpisodeStore(tmp_path)
    store.append(random_episode())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HilDaftError, match=said):
        list(store.iterate())
    assert len(store.verify()) == 1


def test_a_file_of_a_newer_version_asks_for_an_update(tmp_path, monkeypatch):
    with monkeypatch.context() as future:
        future.setattr(episode_file, "SCHEMA_VERSION", 2)
        EpisodeStore(tmp_path).append(random_episode())
    with pytest.raises(HilDaftError, match=r"schema version 2.*update HiL-DAFT"):
        EpisodeStore(tmp_path).read(0)


def test_an_unknown_number_lists_what_there_is(tmp_path):
    store = EpisodeStore(tmp_path)
    with pytest.raises(HilDaftError, match="empty"):
        store.read(0)
    store.append(random_episode())
    with pytest.raises(HilDaftError, match=r"index=7.*0 to 0"):
        store.read(7)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "episodes").write_text("mine")
    with pytest.raises(HilDaftError, match="episodes"):
        EpisodeStore(tmp_path / "episodes")
    assert (tmp_path / "episodes").read_text() == "mine"


def test_a_full_disk_leaves_earlier_episodes_intact(tmp_path):
    store = EpisodeStore(tmp_path)
    small = random_episode(0)
    store.append(small)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # The kernel refuses bytes beyond this size exactly as it does on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(HilDaftError, match="free space"):
            store.append(random_episode(1, steps=50, width=1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.glob("*safetensors*")] == [
        "000000-pick-online.safetensors"
    ]
    assert_same(store.read(0), small)
    assert store.append(random_episode(1)) == 1


def test_a_folder_that_cannot_be_synced_leaves_no_episode(tmp_path, monkeypatch):
    store = EpisodeStore(tmp_path)
    with monkeypatch.context() as broken:

        def fail(folder):
            raise OSError(errno.EIO, "Input/output error")

        broken.setattr("hildaft.data.episodes.sync_folder", fail)
        with pytest.raises(HilDaftError, match="Input/output error"):
            store.append(random_episode())
    assert list(tmp_path.glob("*.safetensors")) == []
    assert store.append(random_episode()) == 0


WRITER = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from test_episodes import random_episode
from hildaft.data.episodes import EpisodeStore
store = EpisodeStore(Path(sys.argv[1]))
episode = random_episode(0, steps=50, width=4_000)
while True:
    print(store.append(episode), flush=True)
"""


def test_a_killed_writer_leaves_only_whole_episodes(tmp_path):
    announced = -1
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), *map(str, Path(__file__).parents[:2])],
            stdout=subprocess.PIPE,
            text=True,
        )
        first = int(writer.stdout.readline())
        assert first > announced
        assert kill_while_writing(writer, tmp_path)
        rest, _ = writer.communicate()
        announced = max([first, *map(int, rest.split())])
        store = EpisodeStore(tmp_path)
        assert list(tmp_path.glob(".writing-*")) == []
        assert store.verify() == []
        # What was announced is there; one more may be whole, but not yet announced.
        assert len(store) in (announced + 1, announced + 2)
        announced = len(store) - 1
