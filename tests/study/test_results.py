"""From run folders to the pages: every number on a page can be found again in the JSON."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hildaft.study.grid import Measurement, Member
from hildaft.study.results import WRITERS, StudyResult, compose, write_results
from hildaft.study.studies import STUDIES
from run_folders import write_run

CHAIN = {
    "talk": "right",
    "chains": [
        {
            "success": False,
            "bolts_done": 1,
            "stages": [{"bolt": 0, "task": "upright", "success": True, "steps": 30}] * 3
            + [{"bolt": 1, "task": "upright", "success": False, "steps": 50}],
            "transit_steps": 60,
            "failed_bolt": 1,
            "failed_task": "upright",
            "reason": "never gripped",
        },
        {
            "success": True,
            "bolts_done": 4,
            "stages": [{"bolt": 0, "task": "upright", "success": True, "steps": 20}] * 12,
            "transit_steps": 200,
            "failed_bolt": None,
            "failed_task": None,
            "reason": None,
        },
    ],
}
CONFIG = (
    "seed: {seed}\nrobot: A\nbackbone: octo-tiny\nenvironment: null\n"
    "training: {{demonstrations: 20, online_transitions: 15000}}\n"
)


@pytest.fixture
def make_result(tmp_path: Path) -> Callable[..., StudyResult]:
    def make(
        study: str, methods: tuple[str, ...] = ("hildaft", "bc"), **given: object
    ) -> StudyResult:
        members = []
        for method in methods:
            for seed in (0, 1):
                member = Member(method=method, seed=seed, words=(), group="g", **given)  # type: ignore[arg-type]
                folder = write_run(tmp_path / "study" / "g" / member.key, episodes=20)
                (folder / "config.yaml").write_text(CONFIG.format(seed=seed))
                members.append(member)
        absent = Member(method="paper", seed=0, words=(), group="g")
        return StudyResult(
            name=study,
            study=study,
            command=("hildaft", "study", study),
            members=[*members, absent],
            root=tmp_path / "study",
        )

    return make


def test_every_study_has_a_page() -> None:
    assert WRITERS.keys() == STUDIES.keys()


@pytest.mark.parametrize("study", ["table1", "fig5", "table2", "ablations"])
def test_page_json_and_picture_are_written(
    study: str, make_result: Callable[..., StudyResult], tmp_path: Path
) -> None:
    result = make_result(study)
    paths = write_results(result, tmp_path / "out", {})
    assert [path.suffix for path in paths] == [".json", ".md", ".png"]
    document = json.loads(paths[0].read_text())
    text = paths[1].read_text()
    assert document["seeds"] == [0, 1]
    run = document["runs"][0]
    assert run["method"] == "hildaft"
    assert len(run["eval"][0]["outcomes"]) == run["eval"][0]["episodes"]
    assert {"warmup_eval", "curve", "metrics", "interventions_share"} <= run.keys()
    assert "| paper | 0 | not run |" in text
    assert f"commit {document['commit']}" in text


def test_table1_counts_all_seeds(make_result: Callable[..., StudyResult], tmp_path: Path) -> None:
    paths = write_results(make_result("table1"), tmp_path / "out", {})
    runs = json.loads(paths[0].read_text())["runs"]
    ours = [run for run in runs if run["method"] == "hildaft"]
    solved = sum(e["successes"] for run in ours for e in run["eval"])
    episodes = sum(e["episodes"] for run in ours for e in run["eval"])
    text = paths[1].read_text()
    assert f"**{100 * solved / episodes:.1f} (" in text
    assert "| 100.0 |" in text  # The paper's average for ours.
    assert "against the others" in text


def test_a_failure_is_said_why(make_result: Callable[..., StudyResult], tmp_path: Path) -> None:
    failures = {str(tmp_path / "study" / "g" / "paper-s0"): "train ended with code 2: no room"}
    document = compose(make_result("table1"), failures)
    assert document["not_run"] == [
        {"method": "paper", "seed": 0, "reason": "train ended with code 2: no room"}
    ]


def test_chains_are_counted_by_how_far_they_got(
    make_result: Callable[..., StudyResult], tmp_path: Path
) -> None:
    shown = Measurement(name="chain", words=lambda run: ())
    missing = Measurement(name="later", words=lambda run: ())
    result = make_result("long-horizon", methods=("hildaft",), measurements=(shown, missing))
    for member in result.members[:2]:
        file = shown.file(tmp_path / "study" / "g" / member.key)
        file.parent.mkdir()
        file.write_text(json.dumps(CHAIN))
    text = write_results(result, tmp_path / "out", {})[1].read_text()
    row = next(line for line in text.splitlines() if "operator talks | 4 |" in line)
    assert [cell.split()[0] for cell in row.split("|")[4:8]] == ["100.0", "50.0", "50.0", "50.0"]
    assert "| hildaft | operator talks | upright | never gripped | 2 | 0, 2, 0, 0 |" in text
    assert "- hildaft-s0: later" in text


def test_nothing_run_yet_is_said(tmp_path: Path) -> None:
    members = [Member(method="hildaft", seed=0, words=())]
    result = StudyResult(
        name="fig5", study="fig5", command=("hildaft",), members=members, root=tmp_path
    )
    paths = write_results(result, tmp_path / "out", {})
    assert len(paths) == 2
    assert "No run is finished yet." in paths[1].read_text()
