"""Compares HiL-DAFT and LeRobot on the same dataset, in both directions. Run it in LeRobot's environment.

python scripts/lerobot_leg.py RUN DATASET: a dataset exported from a run of ours, opened by LeRobot, against the run.
python scripts/lerobot_leg.py DATASET: one that LeRobot wrote, as our importer reads it, against LeRobot's reading.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lerobot
import numpy as np
from lerobot.datasets import LeRobotDataset

from hildaft.config import read_config
from hildaft.data.episode_builder import decode_jpeg
from hildaft.data.episodes import EpisodeStore
from hildaft.data.lerobot_import import iterate_raw
from hildaft.teleop.talk import PHRASES
from hildaft.types import Episode


def main() -> None:
    """One of the two directions, by the number of folders."""
    folders = [Path(word) for word in sys.argv[1:]]
    if len(folders) not in (1, 2):
        sys.exit(str(__doc__))
    dataset = LeRobotDataset("local/leg", root=folders[-1])
    said = exported(folders[0], dataset) if len(folders) == 2 else written(folders[0], dataset)
    tasks = sorted(dataset.meta.tasks.index)
    print(
        f"LeRobot {lerobot.__version__}: {dataset.num_episodes} episodes, {len(dataset)} frames, tasks {tasks}; {said}"
    )


def columns_of(dataset: Any) -> dict[str, np.ndarray]:  # noqa: ANN401 - LeRobot is not typed
    """Every column without images, all rows, as LeRobot holds them."""
    cameras = set(dataset.meta.camera_keys)
    rows = dataset.hf_dataset.with_format(None)
    names = [name for name in rows.column_names if name not in cameras]
    return {name: np.asarray(rows[name]) for name in names}


def expected_of(episode: Episode, instruction: str) -> Mapping[str, Any]:
    """What a row of each column has to say, T rows each."""
    end = episode.terminated | episode.truncated
    return {
        "task": [instruction] * len(episode),
        "action": episode.executed_action,
        "observation.state": episode.proprio[:-1],
        "is_intervention": episode.is_intervention,
        "refinement_command": [PHRASES[index] for index in episode.refinement],
        "spoken_command": [PHRASES[index] for index in episode.spoken],
        "policy_action": episode.policy_action,
        "human_action": episode.human_action,
        "displacement_m": episode.displacement_m,
        "source": [episode.source] * len(episode),
        "policy_version": [episode.policy_version] * len(episode),
        "next.reward": episode.reward,
        "next.done": end,
        "next.truncated": episode.truncated,
        "next.success": end & episode.success,
    }


def exported(run: Path, dataset: Any) -> str:  # noqa: ANN401
    """Every value of every row, and every tenth image and those of interventions."""
    instructions = read_config(run / "config.yaml").instructions
    columns = columns_of(dataset)
    texts = {int(index): text for text, index in dataset.meta.tasks["task_index"].items()}
    columns["task"] = np.array([texts[index] for index in columns["task_index"].tolist()])
    store, first, interventions = EpisodeStore(run / "episodes"), 0, 0
    commands, worst, images = set[str](), 0.0, 0
    for index in store.indices:
        episode = store.read(index)
        rows = slice(first, first + len(episode))
        for name, values in expected_of(episode, instructions[episode.task]).items():
            np.testing.assert_array_equal(columns[name][rows], values, err_msg=name)
        interventions += int(episode.is_intervention.sum())
        commands |= set(columns["refinement_command"][rows])
        # Decoding every image would take minutes.
        for step in np.flatnonzero(episode.is_intervention | (np.arange(len(episode)) % 10 == 0)):
            item = dataset[first + int(step)]
            assert item["task"] == instructions[episode.task]
            for camera, frames in episode.images.items():
                off = _off(item[f"observation.images.{camera}"], decode_jpeg(frames[step]))
                worst, images = max(worst, off), images + 1
        first = rows.stop
    assert first == len(dataset)
    return (
        f"{interventions} intervention rows, {len(commands)} commands, all values equal;"
        f" {images} images off by {worst:.2f} of 255 on average at most"
    )


def written(folder: Path, dataset: Any) -> str:  # noqa: ANN401
    """Every value and every image."""
    columns, first, worst, images = columns_of(dataset), 0, 0.0, 0
    for raw in iterate_raw(folder):
        rows = slice(first, first + len(raw))
        for name, values in raw.columns.items():
            np.testing.assert_array_equal(columns[name][rows], values, err_msg=name)
        for step in range(len(raw)):
            item = dataset[first + step]
            assert item["task"] == raw.task
            for name, frames in raw.images.items():
                frame = frames[step]
                ours = decode_jpeg(frame) if isinstance(frame, bytes) else frame
                worst, images = max(worst, _off(item[name], ours)), images + 1
        first = rows.stop
    assert first == len(dataset)
    return f"{len(columns)} columns, all values equal; {images} images off by {worst:.2f} of 255 on average at most"


def _off(theirs: Any, ours: np.ndarray) -> float:  # noqa: ANN401 - a tensor, 3 H W, 0 to 1
    return float(np.abs(theirs.numpy().transpose(1, 2, 0) * 255.0 - ours.astype(float)).mean())


if __name__ == "__main__":
    main()
