"""The replay buffer: samples per second and bytes per transition, against images and against a list of dicts.

`python benchmarks/replay.py` prints JSON. The variants take turns in one process and hold the same transitions: uint8
images of two 128x128 cameras in one preallocated ring, a Python list of dicts of the features we keep, and ours.
"""

import argparse
from typing import Final

import numpy as np
import torch
from torch import Tensor

from common import BATCH, DIMS, TASKS, Figure, interleave, ratio, spread, write_out
from hildaft.algo.dual_actor import HILDAFT
from hildaft.data.replay import Replay
from learner import Updates
from synthetic import filled_replay

LEROBOT_BYTES: Final = 2 * 3 * 128 * 128 * 4
"""Images of one transition in LeRobot's buffer: float32, next states shared (0.6.1; against_lerobot.py measures it)."""


def bytes_per_transition(replay: Replay) -> float:
    """Memory of the frames written so far over the transitions that can be drawn."""
    columns = [value for value in vars(replay).values() if isinstance(value, Tensor)]
    frame = sum(column.element_size() * column[0].numel() for column in columns)
    counts = replay.counts().values()
    transitions = sum(count["demos"] + count["rollouts"] for count in counts)
    return frame * sum(replay._head.values()) / transitions


class ImageRing:
    """Frames as uint8, once each, with everything else a transition has; s' is the next row."""

    def __init__(self, frames: int) -> None:
        self.images = torch.randint(256, (frames, 2, 3, 128, 128), dtype=torch.uint8)
        self.rest = torch.randn(frames, DIMS.h + DIMS.proprio + 7 + 3)
        self.generator = torch.Generator().manual_seed(0)

    def sample(self, rows: int) -> tuple[Tensor, Tensor]:
        drawn = torch.randint(len(self.images) - 1, (rows,), generator=self.generator)
        both = torch.cat([drawn, drawn + 1])
        return self.images.index_select(0, both), self.rest.index_select(0, both)


class ListOfDicts:
    """One dict of arrays per transition, stacked when drawn."""

    def __init__(self, transitions: int) -> None:
        rng = np.random.default_rng(0)
        widths = {
            "h": DIMS.h,
            "features": DIMS.features,
            "proprio": DIMS.proprio,
            "next_h": DIMS.h,
            "next_features": DIMS.features,
            "next_proprio": DIMS.proprio,
            "action": 7,
            "scalars": 3,
        }
        self.rng = rng
        self.held = [
            {name: rng.standard_normal(w).astype(np.float32) for name, w in widths.items()}
            for _ in range(transitions)
        ]

    def sample(self, rows: int) -> dict[str, Tensor]:
        drawn = [self.held[i] for i in self.rng.integers(len(self.held), size=rows)]
        return {name: torch.from_numpy(np.stack([d[name] for d in drawn])) for name in drawn[0]}


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    replay = filled_replay(TASKS)
    updates = Updates(HILDAFT, replay, TASKS)
    rows = updates.rows * len(TASKS)
    ring, dicts = ImageRing(3000), ListOfDicts(7500)
    times = interleave(
        {
            "ours": lambda: replay.sample(updates.rows, updates.generator, "online"),
            "images": lambda: ring.sample(rows),
            "dicts": lambda: dicts.sample(rows),
            "update": updates.online,
        },
        rounds,
    )
    share = [100 * s / u for s, u in zip(times["ours"], times["update"], strict=True)]
    size = bytes_per_transition(replay)
    figures = {
        "replay.sample_share": spread(share, "%", "the online update it feeds"),
        "replay.samples_per_s": spread([rows / t for t in times["ours"]], "1/s", "one core"),
        "replay.sample_vs_images": ratio(
            times["images"], times["ours"], "uint8 images in one preallocated ring"
        ),
        "replay.sample_vs_dicts": ratio(times["dicts"], times["ours"], "a list of dicts"),
        "replay.bytes_per_transition": Figure(
            round(size, 1),
            "B",
            round(size, 1),
            round(size, 1),
            f"{LEROBOT_BYTES} in LeRobot's buffer",
        ),
    }
    write_out(
        figures,
        {
            "batch": BATCH,
            "bytes_vs_lerobot": round(LEROBOT_BYTES / size, 1),
            "bytes_vs_uint8_images": round(2 * 3 * 128 * 128 / size, 1),
        },
    )


if __name__ == "__main__":
    main()
