"""Datasets go to LeRobot's format and come back; what LeRobot 0.6.1 wrote is read; an export goes on after a kill."""

import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hildaft.commands.datasets import import_
from hildaft.data.episode_builder import EpisodeBuilder, decode_jpeg
from hildaft.data.episodes import EpisodeStore
from hildaft.data.lerobot_format import (
    pyarrow_library,
    read_episode_table,
    read_info,
    read_table,
)
from hildaft.robots.gym_config import GymAction, GymCamera
from hildaft.runtime.dataset_import import DatasetMapping, import_dataset, map_actions
from hildaft.teleop.talk import PHRASES, label_tweaks
from hildaft.types import ActionScale, Encoded, HilDaftError, Observation, RefinementCommand

pytest.importorskip("pyarrow")
from hildaft.data import lerobot_export
from hildaft.data.lerobot_export import Labels, export_dataset
from hildaft.data.lerobot_import import decode, iterate_raw
from hildaft.data.lerobot_video import VideoFrames, VideoWriter
from hildaft.eval.inspection import inspect_dataset

WRITTEN_BY_LEROBOT = Path(__file__).parents[1] / "fixtures" / "lerobot_0_6_1"
LABELS = Labels(instructions={"pick": "pick up"}, phrases=PHRASES, action_scale=ActionScale())
MAPPING = DatasetMapping(
    tasks={"push the block": "pick"},
    cameras={
        name: GymCamera(source="observation", key=f"observation.images.{key}")
        for name, key in (("head", "front"), ("wrist", "side"))
    },
    action=(
        GymAction(means="dx", unit=0.01),
        GymAction(means="dy", unit=-0.01),
        GymAction(means="dz", unit=0.01),
        GymAction(means="gripper", open=0.0, closed=1.0),
    ),
    success="reward",
)


BIT_FOR_BIT = (
    "proprio",
    "policy_action",
    "human_action",
    "executed_action",
    "is_intervention",
    "spoken",
    "refinement",
    "displacement_m",
    "reward",
    "terminated",
    "truncated",
)


class Pixels:
    """Frozen encoders that look at the mean colour."""

    encoder_hash = "mean colour"

    def encode(self, observation: Observation, task: str) -> Encoded:
        h = observation.images["head"].mean(axis=(0, 1)).astype(np.float32)
        return Encoded(h=h, features=h[:2].copy(), proprio=observation.proprio)


def make_episode(seed: int, steps: int = 6, task: str = "pick"):
    rng = np.random.default_rng(seed)
    builder = EpisodeBuilder(
        task=task,
        source="online",
        robot="A",
        seed=seed,
        policy_version=seed,
        encoder_hash="mean colour",
        action_scale=ActionScale(),
    )
    for step in range(steps + 1):
        images = {n: rng.integers(0, 255, (16, 16, 3), np.uint8) for n in ("wrist", "head")}
        observation = Observation(images=images, proprio=np.array([0.5, step % 2], np.float32))
        encoded = Pixels().encode(
            Observation(images={"head": images["head"]}, proprio=observation.proprio), task
        )
        builder.observe(observation, encoded)
        if step < steps:
            action = rng.uniform(-1, 1, 7).astype(np.float32)
            helped = 2 <= step < 4
            builder.act(
                policy_action=-action,
                human_action=action if helped else None,
                executed_action=action if helped else -action,
                spoken=RefinementCommand((1, 0, -1)),
                reward=float(step == steps - 1),
                terminated=step == steps - 1,
                truncated=False,
            )
    return builder.build(label_tweaks)


@pytest.fixture
def store(tmp_path):
    store = EpisodeStore(tmp_path / "episodes")
    for seed in range(7):
        store.append(make_episode(seed, steps=4 + seed, task="pick" if seed % 2 else "assemble"))
    return store


def test_what_was_exported_comes_back_to_the_bit(store, tmp_path):
    result = export_dataset(store, tmp_path / "dataset", LABELS)
    assert (result.episodes, result.frames, result.added) == (7, 49, 7)
    back = EpisodeStore(tmp_path / "back")
    done = import_dataset(tmp_path / "dataset", back, Pixels(), ("pick", "assemble"), None)
    assert done.episodes == 7
    for index in store.indices:
        one, other = store.read(index), back.read(index)
        for name in ("task", "source", "robot", "seed", "policy_version", "success", "images"):
            assert getattr(one, name) == getattr(other, name), name
        for name in BIT_FOR_BIT:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        # h was made from the pixels before JPEG; made anew, it sees them after.
        assert np.abs(one.h - other.h).max() < 3.0


def test_the_columns_are_those_that_info_json_names(store, tmp_path):
    export_dataset(store, tmp_path / "dataset", LABELS)
    assert not list((tmp_path / "dataset").rglob(".writing-*"))
    info = json.loads((tmp_path / "dataset" / "meta" / "info.json").read_text())
    table = read_table(next((tmp_path / "dataset" / "data").rglob("*.parquet")))
    assert set(table.column_names) == set(info["features"])
    assert info["total_frames"] == table.num_rows
    rows = read_episode_table(tmp_path / "dataset")
    assert [row["dataset_from_index"] for row in rows[1:]] == [
        row["dataset_to_index"] for row in rows[:-1]
    ]
    assert rows[1]["tasks"] == ["pick up"]
    statistics = json.loads((tmp_path / "dataset" / "meta" / "stats.json").read_text())
    actions = np.concatenate([e.executed_action for _, e in store.iterate()])
    np.testing.assert_allclose(statistics["action"]["mean"], actions.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(statistics["action"]["std"], actions.std(axis=0), atol=1e-6)
    assert np.shape(statistics["observation.images.head"]["mean"]) == (3, 1, 1)


@pytest.mark.parametrize("kill_at", [1, 2, 4, 5, 7, 9])
def test_an_export_goes_on_where_it_was_killed(store, tmp_path, monkeypatch, kill_at):
    whole = tmp_path / "whole"
    export_dataset(store, whole, LABELS, max_file_mb=0.004)
    calls = iter(range(1000))

    def dying(real):
        def write(*words):
            if next(calls) == kill_at:
                raise KeyboardInterrupt
            return real(*words)

        return write

    killed = tmp_path / "killed"
    with monkeypatch.context() as patch:
        for name in ("write_parquet", "write_json"):
            patch.setattr(lerobot_export, name, dying(getattr(lerobot_export, name)))
        with pytest.raises(KeyboardInterrupt):
            export_dataset(store, killed, LABELS, max_file_mb=0.004)
    export_dataset(store, killed, LABELS, max_file_mb=0.004)
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert len(files) > 10
    assert files == sorted(p.relative_to(killed) for p in killed.rglob("*") if p.is_file())
    for file in files:
        assert (whole / file).read_bytes() == (killed / file).read_bytes(), file


def test_new_episodes_are_added_to_an_export(store, tmp_path):
    export_dataset(store, tmp_path / "dataset", LABELS)
    store.append(make_episode(9))
    result = export_dataset(store, tmp_path / "dataset", LABELS)
    assert (result.episodes, result.added) == (8, 1)
    assert [r.index for r in iterate_raw(tmp_path / "dataset")] == list(range(8))
    assert export_dataset(store, tmp_path / "dataset", LABELS).added == 0


def store_of(folder, tasks, **more):
    store = EpisodeStore(folder)
    for seed, task in enumerate(tasks):
        store.append(replace(make_episode(seed, task=task), **more))
    return store


def tasks_in(folder):
    """Of each episode: the task that its row names, and the text that its rows' task number stands for."""
    return [(raw.meta["hildaft/task"], raw.task) for raw in iterate_raw(folder)]


@pytest.mark.parametrize(
    ("other", "more", "words"),
    [
        (("pick", "assemble", "upright", "pick"), {}, "task='upright', in .* it has 'pick'"),
        (("upright", "pick", "assemble"), {"robot": "B"}, "robot='A', in .* it has 'B'"),
    ],
)
def test_an_export_into_another_runs_dataset_is_refused(tmp_path, other, more, words):
    folder = tmp_path / "dataset"
    export_dataset(store_of(tmp_path / "a", ("upright", "pick", "assemble")), folder, LABELS)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(HilDaftError, match=words) as error:
        export_dataset(store_of(tmp_path / "b", other, **more), folder, LABELS)
    assert "name another folder" in str(error.value)
    assert "\n" not in str(error.value)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_an_export_that_goes_on_with_another_action_scale_is_refused(store, tmp_path):
    export_dataset(store, tmp_path / "dataset", LABELS)
    other = replace(LABELS, action_scale=ActionScale(translation_m=0.01))
    with pytest.raises(HilDaftError, match=r"translation_m=0\.015, this run has 0\.01"):
        export_dataset(store, tmp_path / "dataset", other)


def test_tasks_keep_their_numbers_where_an_episode_was_set_aside(tmp_path):
    folder = tmp_path / "dataset"
    order = ("pick", "upright", "assemble")
    store = store_of(tmp_path / "episodes", order)
    export_dataset(store, folder, LABELS)
    # The first one too, which was read for its cameras.
    for index in (0, 1):
        store.set_aside(store.summaries()[0].path)
        store.append(make_episode(9 + index, task=("upright", "stack")[index]))
        result = export_dataset(store, folder, LABELS)
        assert (result.episodes, result.added) == (4 + index, 1)
    texts = [LABELS.instructions.get(task, task) for task in (*order, "upright", "stack")]
    assert [text for _, text in tasks_in(folder)] == texts
    assert [LABELS.instructions.get(task, task) for task, _ in tasks_in(folder)] == texts


def test_an_export_as_video_opens_again_and_goes_on(store, tmp_path):
    pytest.importorskip("av")
    folder = tmp_path / "dataset"
    export_dataset(store, folder, LABELS, as_video=True, max_file_mb=0.004)
    store.append(make_episode(9))
    result = export_dataset(store, folder, LABELS, as_video=True, max_file_mb=0.004)
    assert (result.episodes, result.added) == (8, 1)
    info = read_info(folder)
    assert {info.features[name]["dtype"] for name in info.cameras} == {"video"}
    assert list(folder.glob("videos/*/*/.writing-*")) == []
    again = EpisodeStore(tmp_path / "again")
    import_dataset(folder, again, Pixels(), ("pick", "assemble"), None)
    for index in range(8):
        one, other = store.read(index), again.read(index)
        for name in BIT_FOR_BIT:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
        for camera, frames in one.images.items():
            assert len(frames) == len(other.images[camera])
            # Noise is the codec's worst case; the mean colour survives.
            for left, right in zip(frames, other.images[camera], strict=True):
                off = decode_jpeg(left).mean((0, 1)) - decode_jpeg(right).mean((0, 1))
                assert np.abs(off).max() < 8
    with pytest.raises(HilDaftError, match="begun with --video"):
        export_dataset(store, folder, LABELS)


def test_an_import_that_finds_none_of_its_tasks_says_what_to_name(tmp_path, capsys):
    store = EpisodeStore(tmp_path / "episodes")
    store.append(make_episode(0, steps=4, task="reach"))
    labels = replace(LABELS, instructions={"reach": "reach the ring"})
    export_dataset(store, tmp_path / "dataset", labels)
    with pytest.raises(
        HilDaftError, match=r"none of its tasks is one of the bolt bench's; .*--env"
    ):
        import_([str(tmp_path / "dataset"), "--out", str(tmp_path / "back")])
    assert "1 of other tasks left out" in capsys.readouterr().out


def test_an_import_goes_on_where_it_was_killed_and_adds_nothing_twice(store, tmp_path):
    folder = tmp_path / "dataset"
    export_dataset(store, folder, LABELS)
    for stop in range(1, 8):
        again = EpisodeStore(tmp_path / f"again-{stop}")

        def dies(count, stop=stop):
            if count == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            import_dataset(folder, again, Pixels(), ("pick", "assemble"), None, dies)
        # Killed in the middle of the next line, and after a line whose episode was never written.
        with (again.folder / "imported.jsonl").open("a") as file:
            file.write(json.dumps({"episode": "x", "number": stop}) + '\n{"epis')
        # A dataset that was moved is the same dataset.
        moved = shutil.copytree(folder, tmp_path / f"moved-{stop}")
        result = import_dataset(moved, again, Pixels(), ("pick", "assemble"), None)
        assert (result.episodes, result.present) == (7 - stop, stop)
        assert [s.seed for s in again.summaries()] == list(range(7))
    (again.folder / "imported.jsonl").write_text("{}\n")
    with pytest.raises(HilDaftError, match=r"ledger .* damaged"):
        import_dataset(folder, again, Pixels(), ("pick",), None)


def test_a_long_video_is_imported_in_bounded_memory(tmp_path):
    pytest.importorskip("av")
    frames, (height, width) = 400, (96, 128)
    path = tmp_path / "long.mp4"
    with VideoWriter(path, height, width, 10) as video:
        for number in range(frames):
            video.add(np.full((height, width, 3), number % 200, np.uint8))
    tracemalloc.start()
    seen = VideoFrames(path, 0.0, 10.0, frames)
    values = [int(frame[0, 0, 0]) for frame in seen]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.abs(np.array(values) - np.arange(frames) % 200).max() < 5
    assert peak < 40 * height * width * 3
    assert abs(int(seen[7][0, 0, 0]) - 7) < 5
    with pytest.raises(HilDaftError, match="cut short"):
        VideoFrames(path, 0.0, 10.0, frames + 1)[frames]


def test_a_dataset_of_others_is_left_alone(store, tmp_path):
    shutil.copytree(WRITTEN_BY_LEROBOT / "image", tmp_path / "theirs")
    with pytest.raises(HilDaftError, match="not exported by HiL-DAFT"):
        export_dataset(store, tmp_path / "theirs", LABELS)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(HilDaftError, match="not exported by HiL-DAFT"):
        export_dataset(store, tmp_path / "notes", LABELS)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_what_lerobot_wrote_is_imported(tmp_path, kind):
    if kind == "video":
        pytest.importorskip("av")
    store = EpisodeStore(tmp_path / "episodes")
    result = import_dataset(WRITTEN_BY_LEROBOT / kind, store, Pixels(), ("pick",), MAPPING)
    assert (result.episodes, result.skipped) == (2, 1)
    episode = store.read(0)
    assert (len(episode), episode.success, episode.source) == (7, True, "demo")
    # 0.3 of a centimetre is 0.2 of our 15 mm; dy is mirrored.
    np.testing.assert_allclose(episode.executed_action[3, :3], [0.2, 0.1 / 1.5, 0.0], atol=1e-6)
    assert episode.executed_action[:, 6].tolist() == [-1, -1, -1, -1, 1, 1, 1]
    head = decode_jpeg(episode.images["head"][2])
    wrist = decode_jpeg(episode.images["wrist"][2])
    # The square that moves 10 px a frame: at frame 2 from column 20 of 128, 16 cut off at the left.
    red = head[..., 0].astype(int) > 128
    assert red[:26].mean() > 0.05
    assert not red[40:].any()
    assert abs(int(np.flatnonzero(red.any(axis=0))[0]) - 5) <= 3
    assert np.abs(head[:, ::-1].astype(int) - wrist).mean() < 4


def at_fps(folder, kind, fps):
    """What LeRobot wrote, at another frame rate."""
    shutil.copytree(WRITTEN_BY_LEROBOT / kind, folder)
    path = folder / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fps": fps}))
    return folder


@pytest.mark.parametrize("kind", ["image", "video"])
def test_frames_between_two_control_steps_are_one_step(tmp_path, kind):
    if kind == "video":
        pytest.importorskip("av")
    theirs = at_fps(tmp_path / "theirs", kind, 30)
    stores = [EpisodeStore(tmp_path / name) for name in ("slow", "fast")]
    mapping = replace(MAPPING, jaws=(0, 6.0, 0.0))
    import_dataset(WRITTEN_BY_LEROBOT / kind, stores[0], Pixels(), ("pick",), mapping)
    result = import_dataset(theirs, stores[1], Pixels(), ("pick",), mapping)
    assert result.episodes == 2
    slow, fast = (store.read(0) for store in stores)
    # Seven frames: three, three and one. Frame t moves 0.1 t of a centimetre in x and 0.1 in y, of our 15 mm.
    wanted = np.array([[0.3, 0.3], [1.2, 0.3], [0.6, 0.1]]) / 1.5
    np.testing.assert_allclose(fast.executed_action[:, :2], wanted, atol=1e-6)
    assert not fast.executed_action[:, 2:6].any()
    # Closed from frame 4 on, which is in the second step.
    assert fast.executed_action[:, 6].tolist() == [-1, 1, 1]
    assert fast.reward.tolist() == [0, 0, 1]
    assert fast.success
    for camera, frames in fast.images.items():
        assert list(frames) == [slow.images[camera][frame] for frame in (0, 3, 6, 6)]
    np.testing.assert_allclose(fast.proprio[:, 0], [0.0, 0.5, 1.0, 1.0])
    assert fast.proprio[:, 1].tolist() == [0, 0, 1, 1]
    again = import_dataset(theirs, stores[1], Pixels(), ("pick",), mapping)
    assert (again.episodes, again.present) == (0, 2)
    # The same dataset, its frame rate corrected after it was imported.
    with pytest.raises(HilDaftError, match="frame rate"):
        import_dataset(theirs, stores[0], Pixels(), ("pick",), mapping)


def test_motions_are_clipped_once_they_are_added_up(tmp_path):
    theirs = at_fps(tmp_path / "theirs", "image", 30)
    store = EpisodeStore(tmp_path / "episodes")
    doubled = replace(MAPPING, action=(GymAction(means="dx", unit=0.02), *MAPPING.action[1:]))
    result = import_dataset(theirs, store, Pixels(), ("pick",), doubled)
    # Of 15 mm: 0.4, 1.6, 0.8 and 0.4, 1.6, 2.8.
    assert result.clipped == 0.5
    np.testing.assert_allclose(store.read(0).executed_action[:, 0], [0.4, 1.0, 0.8], atol=1e-6)


@pytest.mark.parametrize("fps", [25, 29.97, 5, 0])
def test_a_frame_rate_that_is_no_multiple_of_ours_is_one_line(tmp_path, fps):
    theirs = at_fps(tmp_path / "theirs", "image", fps)
    store = EpisodeStore(tmp_path / "episodes")
    words = rf"info\.json says fps={fps}; whole multiples .* 10 Hz, are allowed: resample"
    with pytest.raises(HilDaftError, match=words) as error:
        import_dataset(theirs, store, Pixels(), ("pick",), MAPPING)
    assert "\n" not in str(error.value)
    assert len(store) == 0


def test_jaws_without_a_state_are_one_line(tmp_path):
    theirs = at_fps(tmp_path / "theirs", "image", 10)
    path = theirs / "meta" / "info.json"
    info = json.loads(path.read_text())
    del info["features"]["observation.state"]
    path.write_text(json.dumps(info))
    mapping = replace(MAPPING, jaws=(0, 1.0, 0.0))
    with pytest.raises(HilDaftError, match=r"jaws.* no column observation\.state; leave jaws out"):
        import_dataset(theirs, EpisodeStore(tmp_path / "e"), Pixels(), ("pick",), mapping)


def test_a_corrected_mapping_is_refused_and_another_task_is_no_correction(tmp_path):
    store, theirs = EpisodeStore(tmp_path / "episodes"), WRITTEN_BY_LEROBOT / "image"
    import_dataset(theirs, store, Pixels(), ("pick",), MAPPING)
    corrected = replace(MAPPING, action=(GymAction(means="dx", unit=0.02), *MAPPING.action[1:]))
    for mapping in (corrected, replace(MAPPING, tasks={"push the block": "assemble"})):
        with pytest.raises(HilDaftError, match=r"another mapping.* new folder") as error:
            import_dataset(theirs, store, Pixels(), ("pick", "assemble"), mapping)
        assert "\n" not in str(error.value)
    assert len(store) == 2
    more = replace(MAPPING, tasks={**MAPPING.tasks, "lift the block": "assemble"})
    result = import_dataset(theirs, store, Pixels(), ("pick", "assemble"), more)
    assert (result.episodes, result.present) == (1, 2)


def test_frames_of_a_later_episode_are_its_own(tmp_path):
    pytest.importorskip("av")
    images, videos = (list(iterate_raw(WRITTEN_BY_LEROBOT / k)) for k in ("image", "video"))
    for one, other in zip(images, videos, strict=True):
        for name, frames in one.images.items():
            for left, right in zip(frames, other.images[name], strict=True):
                assert np.abs(decode(left).astype(int) - decode(right)).mean() < 8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"action": MAPPING.action[:3]}, "the dataset's action has 4"),
        ({"cameras": {"head": MAPPING.cameras["head"]}}, "head and wrist are needed"),
        ({"success": "next.success"}, "no column next.success"),
        ({"jaws": (9, 1.0, 0.0)}, r"jaws=\[9, 1\.0, 0\.0\]: .* entries 0 to 3; name one"),
        ({"jaws": (-1, 1.0, 0.0)}, r"jaws=\[-1, .* from 0 on"),
        ({"jaws": (0, 1.0, 1.0)}, r"jaws=\[0, 1\.0, 1\.0\]: .* two that differ"),
        (
            {
                "cameras": {
                    "head": GymCamera(source="observation", key="x"),
                    "wrist": MAPPING.cameras["head"],
                }
            },
            "observation.images.front",
        ),
    ],
)
def test_a_mapping_that_does_not_fit_is_one_line(tmp_path, change, words):
    store = EpisodeStore(tmp_path / "episodes")
    with pytest.raises(HilDaftError, match=words) as error:
        import_dataset(
            WRITTEN_BY_LEROBOT / "image", store, Pixels(), ("pick",), replace(MAPPING, **change)
        )
    assert "\n" not in str(error.value)


def test_without_a_mapping_the_features_are_listed(tmp_path):
    store = EpisodeStore(tmp_path / "episodes")
    with pytest.raises(HilDaftError, match="delta_x, delta_y, delta_z, gripper"):
        import_dataset(WRITTEN_BY_LEROBOT / "image", store, Pixels(), ("pick",), None)


def test_mapped_actions_are_the_same_metres(tmp_path):
    rng = np.random.default_rng(0)
    theirs = rng.uniform(-1, 1, (5, 4)).astype(np.float32)
    ours = map_actions(theirs, MAPPING)
    np.testing.assert_allclose(ours[:, 0] * 0.015, theirs[:, 0] * 0.01, atol=1e-7)
    np.testing.assert_allclose(ours[:, 1] * 0.015, -theirs[:, 1] * 0.01, atol=1e-7)


def test_a_damaged_dataset_is_one_line(store, tmp_path):
    export_dataset(store, tmp_path / "dataset", LABELS)
    data = next((tmp_path / "dataset" / "data").rglob("*.parquet"))
    data.write_bytes(data.read_bytes()[:-200])
    with pytest.raises(HilDaftError, match="dataset file") as error:
        list(iterate_raw(tmp_path / "dataset"))
    assert "\n" not in str(error.value)
    (tmp_path / "dataset" / "meta" / "info.json").write_text("{")
    with pytest.raises(HilDaftError, match="damaged"):
        read_info(tmp_path / "dataset")


def rewritten(folder, name, change):
    """A copy's parquet file, changed."""
    (path,) = folder.glob(name)
    pyarrow_library().parquet.write_table(change(read_table(path)), path)


def test_a_download_that_is_not_whole_is_one_line(store, tmp_path):
    whole = tmp_path / "dataset"
    export_dataset(store, whole, LABELS)
    back = EpisodeStore(tmp_path / "back")
    # A file of the episodes table is missing; rows of a data file's last episodes are.
    fewer, cut = (shutil.copytree(whole, tmp_path / name) for name in ("fewer", "cut"))
    rewritten(fewer, "meta/episodes/*/*.parquet", lambda table: table.slice(0, 5))
    with pytest.raises(HilDaftError, match=r"total_episodes=7, the episodes table has 5") as error:
        import_dataset(fewer, back, Pixels(), ("pick", "assemble"), None)
    assert "\n" not in str(error.value)
    assert len(back) == 0
    rewritten(cut, "data/*/*.parquet", lambda table: table.slice(0, 4 + 5 + 6))
    with pytest.raises(HilDaftError, match=r"episode 3 is not in file-000\.parquet") as error:
        import_dataset(cut, back, Pixels(), ("pick", "assemble"), None)
    assert "\n" not in str(error.value)
    # What is there came over once, also when it is left out the next time; the whole download goes on.
    with pytest.raises(HilDaftError, match="episode 3 is not in"):
        import_dataset(cut, back, Pixels(), ("pick", "assemble"), None)
    assert len(back) == 3
    result = import_dataset(whole, back, Pixels(), ("pick", "assemble"), None)
    assert (result.episodes, result.present) == (4, 3)


def test_inspection_counts_and_warns(store, tmp_path):
    found = inspect_dataset(store.folder, tmp_path / "frames.png")
    assert (found.episodes, found.steps, found.interventions) == (7, 49, 14)
    assert found.warnings == []
    assert (tmp_path / "frames.png").stat().st_size > 1000
    idle = make_episode(20)
    still = np.zeros_like(idle.executed_action)
    store.append(replace(idle, source="demo", success=False, executed_action=still))
    text = inspect_dataset(store.folder).text(store.folder)
    assert "demonstrations of 'pick' did not succeed" in text
    exported = tmp_path / "dataset"
    export_dataset(store, exported, LABELS)
    assert inspect_dataset(exported).steps == 55
    theirs = inspect_dataset(WRITTEN_BY_LEROBOT / "image").text(Path("x"))
    assert "3 episodes, 21 steps" in theirs
    with pytest.raises(HilDaftError, match="neither a run folder"):
        inspect_dataset(tmp_path / "nothing")
