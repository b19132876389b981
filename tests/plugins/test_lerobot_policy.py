"""The plugin in LeRobot itself: the policy acts as ours, bench and robot are LeRobot's. Skipped without LeRobot."""

import sys
from pathlib import Path

import numpy as np
import pytest

lerobot = pytest.importorskip("lerobot")
sys.path.insert(0, str(Path(__file__).parents[2] / "plugins" / "lerobot_policy_hildaft" / "src"))

import lerobot_policy_hildaft
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.envs.factory import make_env_config
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.robots import make_robot_from_config

from hildaft.algo.checkpoint import read_newest, write_checkpoint
from hildaft.algo.training import published_weights
from hildaft.build import build_encoders, build_learner, build_policy
from hildaft.config import read_config
from hildaft.jobs import export_policy
from hildaft.teleop.talk import PHRASES
from hildaft.types import HilDaftError, Observation, RefinementCommand
from run_folders import write_run

pytestmark = pytest.mark.filterwarnings("ignore")
TEXT = "place the bolt upright"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("run") / "run", episodes=1)
    config = read_config(run / "config.yaml")
    encoders = build_encoders(config)
    write_checkpoint(run / "checkpoints", build_learner(config, encoders).state(), {}, step=7)
    out = run.parent / "policy"
    export_policy(run, out, {"head": 256, "wrist": 128})
    ours = build_policy(config, encoders)
    ours.load_weights(published_weights(read_newest(run / "checkpoints").tensors), 7)
    return out, ours


def load(folder, **changes):
    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    for name, value in changes.items():
        setattr(config, name, value)
    policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    return config, policy


def batch(rng, rows, **more):
    def images(size):
        return torch.from_numpy(rng.integers(0, 256, (rows, 3, size, size), np.uint8)).float() / 255

    return {
        "observation.images.head": images(256),
        "observation.images.wrist": images(128),
        "observation.state": torch.from_numpy(rng.uniform(0, 1, (rows, 2)).astype(np.float32)),
        "task": [TEXT] * rows,
        **more,
    }


@pytest.mark.parametrize("command", ["", "positive x direction"])
def test_it_acts_as_our_own_policy_does(folder, command):
    out, ours = folder
    config, policy = load(out, command=command)
    policy.reset()
    seen = batch(np.random.default_rng(0), 2)
    theirs = policy.select_action(seen)
    assert theirs.shape == (2, 7)
    index = PHRASES.index(command) if command else 13
    ours.begin(0)
    for row in range(2):
        images = {
            name: (seen[f"observation.images.{name}"][row] * 255)
            .round()
            .byte()
            .permute(1, 2, 0)
            .numpy()
            for name in ("head", "wrist")
        }
        observation = Observation(images=images, proprio=seen["observation.state"][row].numpy())
        action = ours.act(ours.encode(observation, "upright"), RefinementCommand.from_index(index))
        np.testing.assert_allclose(theirs[row].numpy(), action, atol=1e-6)
    before, after = make_pre_post_processors(config, pretrained_path=str(out))
    one = {k: v[0] for k, v in seen.items()}
    np.testing.assert_allclose(after(policy.select_action(before(one))).shape, (1, 7))


def test_words_and_tasks_it_does_not_know_are_said(folder):
    out, _ = folder
    _, policy = load(out)
    rng = np.random.default_rng(0)
    with pytest.raises(HilDaftError, match="trained on place the bolt upright"):
        policy.select_action(batch(rng, 1, task=["fold the towel"]))
    silent, told = (
        policy.select_action(batch(np.random.default_rng(1), 1, refinement_command=[words]))
        for words in ("[null]", "positive z direction")
    )
    assert silent.shape == told.shape
    with pytest.raises(HilDaftError, match="hildaft talk"):
        load(out, command="colourless green ideas")
    with pytest.raises(NotImplementedError, match="does not train it"):
        policy.get_optim_params()


def test_its_bench_is_an_environment_and_a_robot(tmp_path):
    made = make_env_config("hildaft_bolt", task="upright,pick").create_envs(1)
    assert set(made) == {"upright", "pick"}
    env = made["pick"][0]
    observation, _ = env.reset(seed=[3])
    assert observation["pixels"]["head"].shape == (1, 256, 256, 3)
    assert env.call("task_description") == ("pick up the bolt",)
    for _ in range(3):
        _, reward, _, _, info = env.step(np.zeros((1, 7), np.float32))
    assert reward[0] == 0.0
    assert not info["is_success"][0]
    for vector in made.values():
        vector[0].close()
    config = lerobot_policy_hildaft.HildaftRobotConfig(task="pick", calibration_dir=tmp_path)
    robot = make_robot_from_config(config)
    robot.connect()
    try:
        assert set(robot.get_observation()) == set(robot.observation_features)
        sent = robot.send_action(dict.fromkeys(robot.action_features, 2.0))
        assert set(sent.values()) == {1.0}
        assert robot.send_action({"jaw_opening.pos": 1.0}) == {}
    finally:
        robot.disconnect()
    assert not robot.is_connected
