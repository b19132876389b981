"""The laws of the generic skills, the geometry targets, and what is kept out of pretraining."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hildaft.pretraining.skills import SKILLS, Skill, skill_actions
from hildaft.pretraining.targets import (
    LENGTHS,
    TARGET_DIM,
    geometry_targets,
    lengths,
    lengths_from_targets,
)
from hildaft.robots.bolt_sim.random_scenes import LANDMARKS
from hildaft.types import ActionScale, HilDaftError

SCALE = ActionScale()
TASK_SENTENCES = ("place the bolt upright", "pick up the bolt", "assemble the bolt")


def states(seed: int, count: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    turns = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    return {
        "ee_position": rng.uniform(-0.1, 0.1, (count, 3)),
        "ee_rotation": turns,
        "bolt_rotation": turns,
        "landmarks": rng.uniform(-0.1, 0.1, (count, len(LANDMARKS), 3)),
        "jaw_closed": rng.random(count) < 0.5,
        "jaw_opening": rng.uniform(0, 0.03, count),
        "held": rng.random(count) < 0.5,
    }


def carry_out(skill: Skill, labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    move = skill_actions(skill, labels, SCALE)[:, :3] * SCALE.translation_m
    moved = labels | {"ee_position": labels["ee_position"] + move}
    if skill.moving == "head":
        moved["landmarks"] = labels["landmarks"].copy()
        moved["landmarks"][:, 0] += move
    return moved


def distance(skill: Skill, labels: dict[str, np.ndarray]) -> np.ndarray:
    goal = labels["landmarks"][:, LANDMARKS.index(str(skill.goal))] + np.array(skill.offset_m)
    start = labels["landmarks"][:, 0] if skill.moving == "head" else labels["ee_position"]
    return np.linalg.norm(goal - start, axis=1)


@given(seed=st.integers(0, 10_000), index=st.integers(0, len(SKILLS) - 1))
def test_actions_are_allowed_actions(seed, index):
    actions = skill_actions(SKILLS[index], states(seed), SCALE)
    assert np.abs(actions).max() <= 1.0
    assert (np.linalg.norm(actions[:, :3], axis=1) <= 1.0).all()
    assert (np.abs(actions[:, 6]) == 1.0).all()


@given(seed=st.integers(0, 10_000), skill=st.sampled_from([s for s in SKILLS if s.goal]))
def test_goal_skills_arrive_and_stay(seed, skill):
    if any(skill.direction):
        return
    labels = states(seed)
    before = distance(skill, labels)
    once = carry_out(skill, labels)
    assert (distance(skill, once) <= np.maximum(before - 0.7 * SCALE.translation_m, 1e-6)).all()
    for _ in range(40):
        once = carry_out(skill, once)
    assert (distance(skill, once) < 1e-6).all()


@given(seed=st.integers(0, 10_000))
def test_pushing_goes_behind_the_object_then_through_it(seed):
    skill = next(s for s in SKILLS if s.phrases[0].startswith("push"))
    labels, way = states(seed), np.array(skill.direction)
    target = labels["landmarks"][:, LANDMARKS.index("middle")]
    reached = np.zeros(len(target), bool)
    for _ in range(60):
        labels = carry_out(skill, labels)
        rest = target - labels["ee_position"]
        reached |= np.linalg.norm(rest - way * (rest @ way)[:, None], axis=1) < 0.012
    assert reached.all()
    # An object that does not move is passed, never left sideways.
    assert ((labels["ee_position"] - target) @ way > -0.03).all()


def test_grasp_closes_at_the_goal_only():
    skill = next(s for s in SKILLS if s.jaws == "grasp")
    labels = states(0)
    goal = labels["landmarks"][:, LANDMARKS.index(str(skill.goal))]
    labels["ee_position"] = goal + np.array([[0.0, 0.0, 0.004 * i] for i in range(len(goal))])
    closes = skill_actions(skill, labels, SCALE)[:, 6] > 0
    assert closes.tolist() == [True, True] + [False] * (len(goal) - 2)


def test_the_three_tasks_are_not_among_the_skills():
    said = [phrase for skill in SKILLS for phrase in skill.phrases]
    assert len(said) == len(set(said))
    for sentence in TASK_SENTENCES:
        assert sentence not in said
    assert not any(word in phrase for phrase in said for word in ("upright", "pick", "assemble"))


def test_skill_refuses_unknown_names():
    with pytest.raises(HilDaftError, match="goal='moon'"):
        Skill(phrases=("x",), goal="moon")
    with pytest.raises(HilDaftError, match="jaws='half'"):
        Skill(phrases=("x",), jaws="half")


@given(seed=st.integers(0, 10_000))
def test_targets_give_the_lengths_back(seed):
    labels = states(seed)
    targets = geometry_targets(labels)
    assert targets.shape == (8, TARGET_DIM)
    assert lengths(labels).shape == (8, LENGTHS)
    np.testing.assert_allclose(lengths_from_targets(targets), lengths(labels), atol=2e-5)
