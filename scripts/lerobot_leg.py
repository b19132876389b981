"""Opens a dataset that HiL-DAFT exported in LeRobot itself and compares it with the run it came from.

Run it in LeRobot's environment: python scripts/lerobot_leg.py RUN DATASET
"""

import sys
from pathlib import Path

import lerobot
import numpy as np
from lerobot.datasets import LeRobotDataset

from hildaft.data.episode_builder import decode_jpeg
from hildaft.data.episodes import EpisodeStore
from hildaft.teleop.talk import PHRASES


def main() -> None:
    """Every frame's values, and a sample of images."""
    run, folder = Path(sys.argv[1]), Path(sys.argv[2])
    dataset = LeRobotDataset("hildaft/export", root=folder)
    store = EpisodeStore(run / "episodes")
    frame, interventions, commands, worst = 0, 0, set(), 0.0
    for index in store.indices:
        episode = store.read(index)
        for step in range(len(episode)):
            # Decoding every image would take minutes: the first, and every tenth.
            if step % 10 and not episode.is_intervention[step]:
                frame += 1
                continue
            item = dataset[frame]
            np.testing.assert_array_equal(item["action"].numpy(), episode.executed_action[step])
            np.testing.assert_array_equal(item["observation.state"], episode.proprio[step])
            assert bool(item["is_intervention"]) == bool(episode.is_intervention[step])
            assert item["refinement_command"] == PHRASES[episode.refinement[step]]
            assert item["source"] == episode.source
            interventions += int(episode.is_intervention[step])
            commands.add(item["refinement_command"])
            for camera, images in episode.images.items():
                ours = decode_jpeg(images[step]).astype(float)
                theirs = item[f"observation.images.{camera}"].numpy().transpose(1, 2, 0) * 255.0
                worst = max(worst, float(np.abs(ours - theirs).mean()))
            frame += 1
    assert frame == len(dataset)
    tasks = sorted(dataset.meta.tasks.index)
    print(
        f"LeRobot {lerobot.__version__}: {dataset.num_episodes} episodes, {frame} frames, {interventions} intervention"
        f" rows, {len(commands)} commands, tasks {tasks}; images differ by {worst:.2f} of 255 at most on average"
    )


if __name__ == "__main__":
    main()
