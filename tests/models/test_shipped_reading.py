"""What the shipped image encoder reads off scenes of the tasks: the bolt that is to be handled, not one in the rail."""

import numpy as np
import pytest
import torch

from hildaft.models.encoders import shipped_image_encoder
from hildaft.pretraining.targets import VECTORS, lengths_from_targets
from hildaft.robots.bolt_sim.env import BoltEnv
from hildaft.robots.bolt_sim.geometry import standing_bolt


def errors_mm(env: BoltEnv) -> tuple[float, float]:
    """Errors of the head's place from the gripper, and from the spot."""
    images = {name: torch.from_numpy(image)[None] for name, image in env.scene.render().items()}
    with torch.no_grad():
        read = lengths_from_targets(shipped_image_encoder().encode(images).numpy())[0]
    state = env.scene_state()
    true = {
        "tcp_to_head": state.bolt_position_m - state.ee_position_m,
        "spot_to_head": state.bolt_position_m - state.spot_position_m,
    }
    first, second = (
        1000 * float(np.linalg.norm(read[3 * VECTORS.index(n) :][:3] - t)) for n, t in true.items()
    )
    return first, second


@pytest.mark.parametrize("assembled", [0, 1, 3])
def test_the_next_bolt_is_read_beside_assembled_ones(assembled):
    env = BoltEnv(bolts=4)
    found = []
    for seed in range(8):
        env.reset(seed=seed, options={"task": "upright"})
        for number in range(assembled):
            xy = env.scene.slot_position_table_m[:2] + np.array([0.0, 0.030 + 0.024 * number])
            position, rotation = standing_bolt(xy, 0.3 * number)
            env.scene.place_bolt(
                1 + number,
                env.scene.base_from_table(position),
                env.scene.base_rotation_from_table(rotation),
            )
        env.scene.control.hold()
        env.step(np.array([0, 0, 0, 0, 0, 0, -1], dtype=np.float32))
        found.append(errors_mm(env))
    env.close()
    # The bolt is 10 cm away and more; an encoder that takes one in the rail for it is 15 cm off.
    from_gripper, from_spot = np.median(found, axis=0)
    assert from_gripper < 12
    assert from_spot < 12
