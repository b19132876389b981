"""HIL-SERL's demonstrations from their pickle to our episodes, by the commands a user has."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hildaft.commands.datasets import convert_pickle, import_
from hildaft.config_files import read_yaml
from hildaft.data.episode_builder import decode_jpeg
from hildaft.data.episodes import EpisodeStore
from hildaft.data.import_ledger import fingerprint
from hildaft.robots.gym_config import GymAction, GymCamera
from hildaft.robots.pose import from_euler, matrix_of
from hildaft.runtime.transition_import import TransitionMapping, import_transitions
from hildaft.types import Encoded, HilDaftError

EXAMPLE = Path(__file__).parents[2] / "examples" / "datasets" / "serl.yaml"
RESET = (np.pi, 0.0, 0.3)
MAPPING = TransitionMapping(
    kind="transitions",
    task="pick",
    cameras={
        n: GymCamera(source="observation", key=k)
        for n, k in (("head", "side_policy"), ("wrist", "wrist_1"))
    },
    reset_rpy=RESET,
)


class Pixels:
    encoder_hash = "mean colour"

    def encode(self, observation, task):
        h = observation.images["head"].mean(axis=(0, 1)).astype(np.float32)
        return Encoded(h=h, features=h[:2].copy(), proprio=observation.proprio)


def observation(step, rpy=(0.0, 0.0, 0.0), jaws=1.0):
    state = np.zeros((1, 19), np.float32)
    state[0, 0], state[0, 7:10] = jaws, rpy
    image = np.full((1, 32, 32, 3), 10 * step, np.uint8)
    return {"state": state, "side_policy": image, "wrist_1": image}


def transitions(lengths=(4, 3), success=(True, False), action=None, rpy=(0.1, -0.2, 0.3)):
    """Episodes one after the other, as the recorder appends them."""
    made = []
    for length, good in zip(lengths, success, strict=True):
        for step in range(length):
            last = step == length - 1
            grip = {1: -0.95, 2: 0.0, 3: 0.95}.get(step, 0.0)
            made.append(
                {
                    "observations": observation(step, rpy, jaws=1.0 - 0.5 * (step > 1)),
                    "actions": np.array([*(action or (0.5, 0, 0, 0, 0, 0.2)), grip], np.float32),
                    "next_observations": observation(step + 1, rpy),
                    "rewards": float(last and good),
                    "masks": 1.0 - last,
                    "dones": last,
                    "infos": {"succeed": last and good},
                }
            )
    return made


def converted(tmp_path, made):
    source, target = tmp_path / "demo.pkl", tmp_path / "demo.safetensors"
    source.write_bytes(pickle.dumps(made))
    assert convert_pickle([str(source), "--out", str(target)]) == 0
    return target


def test_a_pickle_becomes_episodes(tmp_path):
    store = EpisodeStore(tmp_path / "episodes")
    target = converted(tmp_path, transitions())
    result = import_transitions(target, store, Pixels(), MAPPING)
    assert (result.episodes, result.present, result.clipped) == (2, 0, 0.0)
    first, second = store.read(0), store.read(1)
    assert (len(first), first.success, first.source, first.robot) == (4, True, "demo", "franka")
    assert (len(second), second.success) == (3, False)
    assert first.terminated.tolist() == [False, False, False, True]
    # Closed at step 1, left alone at 2, opened at 3.
    assert first.executed_action[:, 6].tolist() == [-1, 1, 1, -1]
    assert first.proprio[:, 0].tolist() == [1.0, 1.0, 0.5, 0.5, 1.0]
    # The observation after the last action is the recorder's own.
    assert decode_jpeg(first.images["head"][4]).mean() == pytest.approx(40, abs=1)
    again = import_transitions(target, store, Pixels(), MAPPING)
    assert (again.episodes, again.present) == (0, 2)


def test_end_effector_axes_are_turned_into_base_axes(tmp_path):
    rng = np.random.default_rng(0)
    actions, turns = rng.uniform(-1, 1, (30, 6)), rng.uniform(-0.5, 0.5, (30, 3))
    made = []
    for action, rpy in zip(actions, turns, strict=True):
        made += transitions((1,), (True,), tuple(action), tuple(rpy))
    store = EpisodeStore(tmp_path / "episodes")
    import_transitions(converted(tmp_path, made), store, Pixels(), MAPPING)
    for index, (action, rpy) in enumerate(zip(actions.astype(np.float32), turns, strict=True)):
        moved = store.read(index).executed_action[0, :6] * np.array([0.015] * 3 + [0.15] * 3)
        turn = matrix_of(from_euler(np.array(RESET))) @ matrix_of(from_euler(rpy))
        for part, unit, bound in ((slice(0, 3), 0.02, 0.015), (slice(3, 6), 0.1, 0.15)):
            wanted = turn @ (action[part] * unit)
            assert moved[part] == pytest.approx(np.clip(wanted, -bound, bound), abs=1e-6)


def test_base_axes_stay_and_what_is_too_large_is_counted(tmp_path):
    store = EpisodeStore(tmp_path / "episodes")
    target = converted(tmp_path, transitions((5,), (True,), (1.0, 0, 0, 0, 0, 0)))
    result = import_transitions(target, store, Pixels(), replace(MAPPING, frame="base"))
    assert result.clipped == 1.0
    assert store.read(0).executed_action[0, :3].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "change",
    [
        {"action": (GymAction(means="dx", unit=0.03), *MAPPING.action[1:])},
        {"task": "assemble"},
        {"frame": "base"},
    ],
)
def test_a_corrected_mapping_is_not_a_second_import(tmp_path, change):
    store = EpisodeStore(tmp_path / "episodes")
    target = converted(tmp_path, transitions())
    import_transitions(target, store, Pixels(), MAPPING)
    with pytest.raises(HilDaftError, match=r"another mapping.* new folder") as error:
        import_transitions(target, store, Pixels(), replace(MAPPING, **change))
    assert "\n" not in str(error.value)
    assert len(store) == 2
    fresh = EpisodeStore(tmp_path / "fresh")
    corrected = replace(MAPPING, **change)
    assert import_transitions(target, fresh, Pixels(), corrected).episodes == 2


def test_what_a_version_before_imported_is_there(tmp_path):
    store = EpisodeStore(tmp_path / "episodes")
    target = converted(tmp_path, transitions())
    import_transitions(target, store, Pixels(), MAPPING)
    # Its lines had the mapped actions' fingerprint, and no checksum.
    names = [
        fingerprint("pick", store.read(0).executed_action, np.array([0])),
        fingerprint("pick", store.read(1).executed_action, np.array([4])),
    ]
    lines = [json.dumps({"episode": name, "number": n}) + "\n" for n, name in enumerate(names)]
    (store.folder / "imported.jsonl").write_text("".join(lines))
    result = import_transitions(target, store, Pixels(), MAPPING)
    assert (result.episodes, result.present) == (0, 2)


def test_a_recording_that_was_stopped_ends_without_success(tmp_path):
    store = EpisodeStore(tmp_path / "episodes")
    target = converted(tmp_path, transitions()[:-1])
    assert import_transitions(target, store, Pixels(), MAPPING).episodes == 2
    assert store.read(1).truncated.tolist() == [False, True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": "joints"}, "no 'observations/joints'; it holds"),
        ({"relative_rpy": (17, 18, 19)}, "has 19 entries"),
        ({"action": MAPPING.action[:4]}, "the transitions' have 7"),
        (
            {"jaws": (19, 1.0, 0.0)},
            r"jaws=\[19, 1\.0, 0\.0\]: 'state' has entries 0 to 18; name one",
        ),
        ({"jaws": (-1, 1.0, 0.0)}, r"jaws=\[-1, .* from 0 on"),
        ({"jaws": (0, 1.0, 1.0)}, r"jaws=\[0, 1\.0, 1\.0\]: .* two that differ"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, change, words):
    store = EpisodeStore(tmp_path / "episodes")
    target = converted(tmp_path, transitions())
    with pytest.raises(HilDaftError, match=words) as error:
        import_transitions(target, store, Pixels(), replace(MAPPING, **change))
    assert "\n" not in str(error.value)
    assert len(store) == 0


def test_files_that_are_no_transitions_are_refused(tmp_path):
    store = EpisodeStore(tmp_path / "episodes")
    with pytest.raises(HilDaftError, match="convert-pickle"):
        import_([str(tmp_path / "demo.pkl"), "--out", str(tmp_path / "episodes")])
    with pytest.raises(HilDaftError, match="--map FILE"):
        import_([str(tmp_path / "demo.safetensors"), "--out", str(tmp_path / "episodes")])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(HilDaftError, match=r"cut\.safetensors"):
        import_transitions(tmp_path / "cut.safetensors", store, Pixels(), MAPPING)
    assert read_yaml(TransitionMapping, EXAMPLE, "").task == "pick"
