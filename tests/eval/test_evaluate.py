import json
from dataclasses import replace

import numpy as np
import pytest

from hildaft.eval.evaluate import (
    EvaluationRecord,
    evaluate,
    evaluation_seed,
    outcome_of,
    read_evaluations,
    write_evaluation,
)
from hildaft.types import HilDaftError, RefinementCommand
from point_robot import LIMIT, Helper, PixelPolicy, PointRobot

TASKS = ("reach", "pick")


def test_every_policy_meets_the_same_start_states():
    good = evaluate(PointRobot(), PixelPolicy(), TASKS, 6, seed=5)
    bad = evaluate(PointRobot(), PixelPolicy(gain=0.0), TASKS, 6, seed=5)
    for one, other in zip(good.tasks, bad.tasks, strict=True):
        assert [o.seed for o in one.outcomes] == [o.seed for o in other.outcomes]
    seeds = {o.seed for task in good.tasks for o in task.outcomes}
    assert len(seeds) == 12
    assert good.success_rate == 1.0
    assert bad.success_rate < 0.2
    other_seed = evaluate(PointRobot(), PixelPolicy(), TASKS, 6, seed=6)
    assert seeds.isdisjoint(o.seed for task in other_seed.tasks for o in task.outcomes)


def test_the_seed_is_the_same_on_every_machine():
    # Written down once: a change would make old results incomparable.
    assert [evaluation_seed(0, "pick", i) for i in range(2)] == [863666319, 256332409]
    assert all(0 <= evaluation_seed(0, "pick", i) < 2**31 for i in range(200))


def test_failures_count_as_fifty_steps_and_stalls_are_told_from_wandering():
    still = evaluate(PointRobot(), PixelPolicy(gain=0.0), ["reach"], 5, seed=1).tasks[0]
    wandering = evaluate(PointRobot(), PixelPolicy(gain=0.0, drift=0.5), ["reach"], 5, seed=1)
    assert still.successes < 5
    for outcome in still.outcomes:
        assert outcome.stalled is not outcome.success
    assert not any(o.stalled for o in wandering.tasks[0].outcomes)
    for outcome, length in zip(still.outcomes, still.lengths, strict=True):
        assert length == (outcome.length if outcome.success else LIMIT)


def test_a_stall_looks_at_motion_only():
    collected = []
    policy = PixelPolicy(gain=0.0, drift=0.2)
    evaluate(PointRobot(), policy, ["reach"], 1, 2, on_episode=collected.append)
    [episode] = collected
    assert not episode.success
    quiet = episode.executed_action.copy()
    quiet[-10:, :6] = 0.01
    quiet[-10:, 6] = 1.0
    assert not outcome_of(episode).stalled
    assert outcome_of(replace(episode, executed_action=quiet)).stalled
    assert not outcome_of(replace(episode, executed_action=quiet, success=True)).stalled


def test_episodes_are_handed_on_with_images_only_if_asked():
    without, within = [], []
    evaluate(PointRobot(), PixelPolicy(), ["reach"], 2, 3, on_episode=without.append)
    evaluate(
        PointRobot(), PixelPolicy(), ["reach"], 2, 3, on_episode=within.append, keep_images=True
    )
    assert [len(e.images) for e in without + within] == [0, 0, 2, 2]
    assert {e.source for e in without} == {"eval"}


def test_an_operator_may_talk():
    robot = PointRobot()
    command = RefinementCommand((0, 1, 0))
    policy = PixelPolicy()
    operator = Helper(robot, count=0, command=command)
    result = evaluate(robot, policy, ["reach"], 2, 3, operator, talk="right")
    assert set(policy.commands) == {command}
    assert result.to_json()[0]["talk"] == "right"


def test_the_json_has_the_results_shape():
    result = evaluate(PointRobot(), PixelPolicy(), TASKS, 3, seed=0)
    for entry, task in zip(result.to_json(), TASKS, strict=True):
        assert entry["task"] == task
        assert (entry["talk"], entry["episodes"], entry["successes"]) == ("none", 3, 3)
        assert len(entry["lengths"]) == len(entry["outcomes"]) == 3
        assert set(entry["outcomes"][0]) == {"seed", "success", "length", "stalled", "robot"}
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.usefixtures("unchecked_calls")
@pytest.mark.parametrize("change", [{"tasks": []}, {"episodes": 0}, {"talk": "loud"}])
def test_senseless_requests_are_refused(change):
    options = {"tasks": TASKS, "episodes": 1, "seed": 0, **change}
    with pytest.raises(HilDaftError, match="at least one task"):
        evaluate(PointRobot(), PixelPolicy(), **options)


def record(name="warmup", transitions=0, **changes):
    result = evaluate(PointRobot(), PixelPolicy(), TASKS, 2, seed=0)
    values = {
        "name": name,
        "transitions": transitions,
        "robot_minutes": transitions / 600,
        "wall_minutes": 1.5,
        "preset": "hildaft",
        "seed": 0,
        "result": result,
        "diagnostics": {"obedience": 0.5},
    }
    return EvaluationRecord(**{**values, **changes})


def test_evaluations_come_back_in_the_order_of_the_run(tmp_path):
    records = [record("final", 900), record("online", 900), record("warmup"), record("online", 20)]
    paths = [write_evaluation(tmp_path, item) for item in records]
    assert paths[0] == tmp_path / "evaluations" / "000900-final.json"
    read = read_evaluations(tmp_path)
    assert read == [records[2], records[3], records[1], records[0]]
    assert np.isclose(read[2].robot_minutes, 1.5)
    assert list((tmp_path / "evaluations").glob(".writing*")) == []


def test_a_run_without_evaluations_has_none(tmp_path):
    assert read_evaluations(tmp_path) == []


@pytest.mark.parametrize("content", ["", "[]", '{"name": "warmup"}', "{"])
def test_a_damaged_evaluation_is_named(tmp_path, content):
    path = write_evaluation(tmp_path, record())
    path.write_text(content)
    with pytest.raises(HilDaftError, match=r"000000-warmup\.json is damaged") as caught:
        read_evaluations(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(HilDaftError, match="seed -1: 0 or more"):
        evaluation_seed(-1, "pick", 0)
