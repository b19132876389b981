"""One SAC update of LeRobot per line read from stdin; prints what it runs, then CPU seconds per update.

Run by `against_lerobot.py` with the interpreter of an environment where `lerobot` (0.6) is installed. The setting is
its default convolutional encoder, trained and shared by actor and critics, two 3x128x128 cameras, DrQ shifts, half the
rows from the offline buffer. Its frozen ResNet-10 is left out: it needs a download and costs a little more.
"""

import importlib.metadata
import json
import sys
import time
from functools import partial

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.gaussian_actor import GaussianActorConfig, GaussianActorPolicy
from lerobot.rl.algorithms.sac import SACAlgorithm, SACAlgorithmConfig
from lerobot.rl.buffer import ReplayBuffer, random_shift

CAMERAS = ("observation.images.wrist", "observation.images.head")


def build() -> SACAlgorithm:
    """SAC with the default encoder."""
    statistics = {name: {"mean": [0.5] * 3, "std": [0.25] * 3} for name in CAMERAS} | {
        "observation.state": {"min": [-1.0] * 2, "max": [1.0] * 2},
        "action": {"min": [-1.0] * 7, "max": [1.0] * 7},
    }
    config = GaussianActorConfig(
        device="cpu",
        storage_device="cpu",
        freeze_vision_encoder=False,
        shared_encoder=True,
        dataset_stats=statistics,
        input_features={
            **{name: PolicyFeature(FeatureType.VISUAL, (3, 128, 128)) for name in CAMERAS},
            "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (7,))},
    )
    algorithm = SACAlgorithm(
        GaussianActorPolicy(config), SACAlgorithmConfig.from_policy_config(config)
    )
    algorithm.make_optimizers_and_scheduler()
    return algorithm


def fill(rows: int) -> ReplayBuffer:
    """A buffer of random frames, with the memory optimisation its learner always sets."""
    buffer = ReplayBuffer(
        rows,
        device="cpu",
        state_keys=[*CAMERAS, "observation.state"],
        image_augmentation_function=partial(random_shift, pad=4),
        optimize_memory=True,
    )
    for _ in range(rows):
        state = {name: torch.rand(1, 3, 128, 128) for name in CAMERAS}
        state["observation.state"] = torch.rand(1, 2)
        buffer.add(state, torch.rand(1, 7), 0.0, state, False, False)
    return buffer


def joined(online: dict, offline: dict) -> dict:
    """Both halves as one batch."""
    return {
        key: (
            {name: torch.cat([value[name], offline[key][name]]) for name in value}
            if isinstance(value, dict)
            else torch.cat([value, offline[key]])
        )
        for key, value in online.items()
        if value is not None
    }


def main() -> None:
    """Reads lines until stdin ends."""
    rows = int(sys.argv[1])
    torch.set_num_threads(1)
    algorithm = build()
    online, offline = fill(rows), fill(rows)

    def update() -> None:
        batch = joined(online.sample(rows // 2), offline.sample(rows // 2))
        algorithm.update(iter([batch]))

    update()
    stored = sum(v[0].numel() * v.element_size() for v in online.states.values())
    about = {
        "lerobot": importlib.metadata.version("lerobot"),
        "torch": torch.__version__,
        "rows": 2 * (rows // 2),
        "bytes_per_transition": stored + online.actions[0].numel() * 4 + 4 + 1 + 1,
    }
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        start = time.thread_time()
        update()
        print(time.thread_time() - start, flush=True)


if __name__ == "__main__":
    main()
