"""Which pairs of methods the full form tells apart, and whether the quick form keeps their order."""

from typing import Any

from quick_order import page, pairs

EPISODES = 20


def run(method: str, seed: int, solved: int) -> dict[str, Any]:
    outcomes = [{"seed": number, "success": number < solved} for number in range(EPISODES)]
    lengths = [20 if number < solved else 50 for number in range(EPISODES)]
    evaluation = {"task": "pick", "outcomes": outcomes, "lengths": lengths}
    return {"method": method, "seed": seed, "settings": "same", "eval": [evaluation]}


FULL = {
    "runs": [
        run(method, seed, solved)
        for method, found in {
            "far-above": (19, 18, 20),
            "unsteady": (4, 19, 8),
            "far-below": (1, 2, 1),
        }.items()
        for seed, solved in enumerate(found)
    ]
}


def quick(**solved: int) -> dict[str, Any]:
    return {"runs": [run(method.replace("_", "-"), 0, count) for method, count in solved.items()]}


def test_a_pair_is_told_apart_by_its_runs_alone_not_by_its_episodes() -> None:
    found = {
        (p.better, p.worse): p for p in pairs(FULL, quick(far_above=9, unsteady=5, far_below=1))
    }
    assert len(found) == 3
    assert found["far-above", "far-below"].apart("over runs")
    # 31 of 60 against 4 of 60, but 15, 85 and 35 % from run to run.
    assert not found["unsteady", "far-below"].apart("over runs")
    assert found["unsteady", "far-below"].apart("bootstrap")


def test_a_tie_and_another_order_are_not_the_same_order() -> None:
    found = {
        (p.better, p.worse): p.kept
        for p in pairs(FULL, quick(far_above=5, unsteady=9, far_below=5))
    }
    assert found == {
        ("far-above", "unsteady"): False,
        ("far-above", "far-below"): False,
        ("unsteady", "far-below"): True,
    }
    text = page(pairs(FULL, quick(far_above=5, unsteady=9, far_below=5)), "command")
    assert "over runs: the quick form has 0 of 1 such pairs in the same order" in text


def test_a_method_that_one_form_lacks_is_left_out() -> None:
    assert [(p.better, p.worse) for p in pairs(FULL, quick(far_above=9, unsteady=5))] == [
        ("far-above", "unsteady")
    ]
