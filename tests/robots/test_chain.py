"""Chains: every bolt goes through the three tasks with no reset in between."""

import numpy as np
from PIL import Image

from hildaft.robots.bolt_sim.chain import BoltChain
from hildaft.robots.bolt_sim.contact_sheet import record_frames, write_clip, write_contact_sheet
from hildaft.robots.bolt_sim.tasks import TASKS
from hildaft.teleop.oracle import oracle_action
from hildaft.types import Action, Observation


def test_the_oracle_assembles_two_bolts_in_a_row() -> None:
    chain = BoltChain("A", 2)
    seen: list[str] = []

    def act(observation: Observation, task: str) -> Action:
        assert observation.images["head"].shape == (256, 256, 3)
        seen.append(task)
        return oracle_action(chain.scene_state(), chain.env.action_scale)

    result = chain.run(act, seed=0)
    assert result.success
    assert [(s.bolt, s.task) for s in result.stages] == [(b, t) for b in (0, 1) for t in TASKS]
    assert result.task_steps == len(seen)
    assert result.transit_steps > 0
    # Both bolts stand in the rail, the first pushed on by the second.
    mouth = chain.env.scene.slot_position_table_m
    depths = [chain.env.scene.bolt_pose_table(i)[0][1] - mouth[1] for i in (0, 1)]
    assert 0.125 > depths[0] > depths[1] > 0.015
    chain.close()


def test_a_chain_ends_at_the_first_failure() -> None:
    chain = BoltChain("A", 1)

    def still(_: Observation, __: str) -> Action:
        return np.array([0, 0, 0, 0, 0, 0, -1], dtype=np.float32)

    result = chain.run(still, seed=0)
    assert not result.success
    assert [(s.task, s.success, s.steps) for s in result.stages] == [("upright", False, 50)]
    chain.close()


def test_pictures_are_written(tmp_path) -> None:
    chain = BoltChain("A", 1)
    env = chain.env
    frames = record_frames(env, lambda s: oracle_action(s, env.action_scale), "pick", 1)
    write_contact_sheet(tmp_path / "sheet.png", {"pick": frames}, columns=3)
    write_clip(tmp_path / "clip.gif", frames)
    with Image.open(tmp_path / "sheet.png") as sheet, Image.open(tmp_path / "clip.gif") as clip:
        assert sheet.size == (3 * 512, 256)
        assert getattr(clip, "n_frames", 1) > 5
    chain.close()
