"""From run folders to the pages: every number on a page can be found again in the JSON."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hildaft.eval.run_data import read_run
from hildaft.study.collect import interventions_share
from hildaft.study.fleets import minutes_to, pooled_curve
from hildaft.study.grid import Measurement, Member
from hildaft.study.overview import write_overview
from hildaft.study.pages import length_table, not_run, reported
from hildaft.study.results import EARLIER, WRITERS, StudyResult, compose, write_results
from hildaft.study.studies import STUDIES
from hildaft.types import HilDaftError
from run_folders import TASKS, write_run

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
    "operator: {{noise: 0.1, max_share: 0.4}}\n"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four finished runs, written once: two methods, two seeds."""
    root = tmp_path_factory.mktemp("study")
    for method in ("hildaft", "bc"):
        for seed in (0, 1):
            folder = write_run(root / "g" / f"{method}-s{seed}", seed=seed, episodes=20)
            (folder / "config.yaml").write_text(CONFIG.format(seed=seed))
    return root


def make_result(root: Path, study: str, *measurements: Measurement) -> StudyResult:
    members = [
        Member(method=method, seed=seed, words=(), group="g", measurements=measurements)
        for method in ("hildaft", "bc")
        for seed in (0, 1)
    ]
    members.append(Member(method="paper", seed=0, words=(), group="g"))
    command = ("hildaft", "study", study)
    return StudyResult(name=study, study=study, command=command, members=members, root=root)


def test_every_study_has_a_page() -> None:
    assert WRITERS.keys() == STUDIES.keys()


@pytest.mark.parametrize("study", ["table1", "fig5", "table2", "ablations"])
def test_page_json_and_picture_are_written(study: str, root: Path, tmp_path: Path) -> None:
    result = make_result(root, study)
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


def test_a_backbones_latency_stands_beside_its_success(root: Path, tmp_path: Path) -> None:
    latency = Measurement(name="latency", words=lambda run: ())
    file = latency.file(root / "g" / "hildaft-s1")
    file.parent.mkdir(exist_ok=True)
    times = {"encode_p50_ms": 4.0, "encode_p99_ms": 6.0, "act_p50_ms": 0.2, "act_p99_ms": 0.5}
    file.write_text(json.dumps({**times, "threads": 1}))
    text = write_results(make_result(root, "table2", latency), tmp_path / "out", {})[1].read_text()
    assert "| hildaft | 1 | 4.0, 6.0 | 0.20, 0.50 | 1 | 6 % |" in text
    assert "| hildaft | 0 | 4.0" not in text
    without = write_results(make_result(root, "table2"), tmp_path / "without", {})[1].read_text()
    assert "Latency" not in without


def test_table1_counts_all_seeds(root: Path, tmp_path: Path) -> None:
    paths = write_results(make_result(root, "table1"), tmp_path / "out", {})
    runs = json.loads(paths[0].read_text())["runs"]
    ours = [run for run in runs if run["method"] == "hildaft"]
    solved = sum(e["successes"] for run in ours for e in run["eval"])
    episodes = sum(e["episodes"] for run in ours for e in run["eval"])
    text = paths[1].read_text()
    assert f"**{100 * solved / episodes:.1f} (" in text
    assert "| 100.0 |" in text  # The paper's average for ours.
    assert "against the others" in text


def test_a_second_evaluation_with_talk_has_a_row_of_its_own(root: Path, tmp_path: Path) -> None:
    spoken = Measurement(name="spoken-4", words=lambda run: ())
    outcomes = [{"seed": i, "success": i > 0, "length": 20, "stalled": False} for i in range(4)]
    counts = {"talk": "right", "episodes": 4, "successes": 3, "lengths": [50, 20, 20, 20]}
    tasks = [{"task": task, **counts, "outcomes": outcomes} for task in TASKS]
    file = spoken.file(root / "g" / "hildaft-s0")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"talk": "right", "tasks": tasks}))
    text = write_results(make_result(root, "table1", spoken), tmp_path / "out", {})[1].read_text()
    row = next(line for line in text.splitlines() if line.startswith("| hildaft, spoken to | 1 |"))
    assert "**75.0 (" in row
    # The paired comparison is of the silent evaluations.
    assert "| hildaft, spoken to | 1 | 4" not in text.partition("against the others")[2]


def test_a_failure_is_said_why(root: Path) -> None:
    failures = {str(root / "g" / "paper-s0"): "train ended with code 2: no room"}
    document = compose(make_result(root, "table1"), failures)
    assert document["not_run"] == [
        {"method": "paper", "seed": 0, "reason": "train ended with code 2: no room"}
    ]


def test_seeds_not_run_for_one_reason_share_a_row() -> None:
    absent = [("paper", 0, "not run"), ("bc", 0, "failed"), ("paper", 2, "not run")]
    entries = [{"method": m, "seed": seed, "reason": reason} for m, seed, reason in absent]
    assert not_run({"not_run": entries})[2:] == [
        "| paper | 0, 2 | not run |",
        "| bc | 0 | failed |",
    ]
    assert not_run({"not_run": []}) == []


def test_earlier_results_are_kept_where_asked(root: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", make_result(root, "fig5")
    before = json.loads(write_results(whole, out, {})[0].read_text())["runs"]
    # As on another machine, where only the first run was made.
    folder = whole.members[0].key
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / folder).symlink_to(root / "g" / folder)
    part = replace(whole, root=tmp_path, keep=True)
    kept = json.loads(write_results(part, out, {})[0].read_text())
    assert [(r["method"], r["seed"]) for r in kept["runs"]] == [
        (r["method"], r["seed"]) for r in before
    ]
    assert kept["runs"][1:] == before[1:]
    assert [entry["method"] for entry in kept["not_run"]] == ["paper"]
    alone = json.loads(write_results(replace(part, keep=False), out, {})[0].read_text())
    assert len(alone["runs"]) == 1
    # What stood there is not lost, and not moved again by the next writing.
    write_results(replace(part, keep=False), out, {})
    assert [path.name for path in (out / EARLIER).iterdir()] == ["fig5-1"]
    aside = out / EARLIER / "fig5-1"
    assert json.loads((aside / "fig5.json").read_text())["runs"] == kept["runs"]
    assert {path.suffix for path in aside.iterdir()} == {".json", ".md", ".png"}
    (out / "fig5.json").write_text('{"runs": 3}')
    with pytest.raises(HilDaftError, match=r"fig5\.json: cannot be read"):
        write_results(part, out, {})


def test_runs_kept_from_before_need_not_be_of_this_study(root: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", make_result(root, "fig5")
    write_results(whole, out, {})
    part = replace(whole, members=whole.members[2:], keep=True)
    kept = json.loads(write_results(part, out, {})[0].read_text())["runs"]
    order = [("bc", 0), ("bc", 1), ("hildaft", 0), ("hildaft", 1)]
    assert [(run["method"], run["seed"]) for run in kept] == order


def test_runs_of_different_benches_are_not_paired(root: Path, tmp_path: Path) -> None:
    for method in ("hildaft", "bc"):
        shutil.copytree(root / "g" / f"{method}-s0", tmp_path / "g" / f"{method}-s0")
    result = make_result(tmp_path, "fig5")
    paired = write_results(result, tmp_path / "out", {})[1].read_text()
    assert "| **bc** | 1 | 60 |" in paired
    config = tmp_path / "g" / "bc-s0" / "config.yaml"
    config.write_text(config.read_text().replace("max_share: 0.4", "max_share: 0.1"))
    assert "| **bc** | 1 | 60 |" in write_results(result, tmp_path / "out", {})[1].read_text()
    config.write_text(config.read_text().replace("noise: 0.1", "noise: 0.3"))
    apart = write_results(result, tmp_path / "out", {})[1].read_text()
    assert "Not of one bench" in apart
    assert "| **bc** | 1 | 60 |" not in apart


def test_the_papers_figures_stand_where_somebody_talks(root: Path, tmp_path: Path) -> None:
    assert reported("hildaft", ["hildaft"]) == reported("hildaft, spoken to", ["hildaft"])
    rows = ["hildaft", "hildaft, spoken to", "hg-dagger"]
    assert reported("hildaft", rows) is None
    assert reported("hildaft, spoken to", rows) is not None
    assert reported("hg-dagger", rows) is not None


def test_an_average_length_needs_every_task() -> None:
    outcomes = [{"seed": 1, "success": True, "length": n, "stalled": False} for n in (20, 20, 40)]
    failed = [{**o, "success": False} for o in outcomes]
    run = {
        "method": "bc",
        "measured": {},
        "eval": [
            {"task": "pick", "outcomes": outcomes[:2], "lengths": [20, 20]},
            {"task": "upright", "outcomes": outcomes[2:], "lengths": [40]},
        ],
    }
    # The tasks count alike, however many of their episodes succeeded.
    assert "| bc | 20.0 | 40.0 | 30.0 |" in "\n".join(length_table({"runs": [run]}))
    run["eval"] = [run["eval"][0], {"task": "upright", "outcomes": failed, "lengths": [50] * 3}]
    assert "| bc | 20.0 | - | - |" in "\n".join(length_table({"runs": [run]}))


def test_an_episode_reported_twice_counts_once(root: Path, tmp_path: Path) -> None:
    run = read_run(root / "g" / "hildaft-s0")
    rows = [
        {"step": 10.0, "rollout/length/pick": 10.0, "rollout/intervention_share": 0.5},
        {"step": 40.0, "rollout/length/pick": 30.0, "rollout/intervention_share": 0.1},
    ]
    assert interventions_share(replace(run, metrics=[*rows, *rows])) == pytest.approx(0.2)
    assert interventions_share(replace(run, metrics=[rows[1], rows[0]])) == pytest.approx(0.2)
    assert interventions_share(replace(run, metrics=[{"step": 3.0}])) is None


def test_chains_are_counted_by_how_far_they_got(root: Path, tmp_path: Path) -> None:
    shown = Measurement(name="chain", words=lambda run: ())
    missing = Measurement(name="later", words=lambda run: ())
    result = make_result(root, "long-horizon", shown, missing)
    for member in result.members[:2]:
        file = shown.file(root / "g" / member.key)
        file.parent.mkdir(exist_ok=True)
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


def test_the_overview_shows_what_exists_and_names_what_does_not(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for study in ("table1", "fig5"):
        write_results(make_result(root, study), out, {})
    (out / "bench.json").write_text("{}")
    text = write_overview(out).read_text()
    assert "Table I: success and episode length</h2>" in text
    assert "Obedience over training" in text
    assert "Interventions over training" in text
    assert "<li>Long horizon</li>" in text
    assert "Table I:" not in text.partition("Not run:")[2].partition("</ul>")[0]
    assert "Traceback" not in text
    assert text.count("data:image/png") == 4


def test_a_damaged_results_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "table1.json").write_text("{")
    with pytest.raises(HilDaftError, match="--summarise"):
        write_overview(tmp_path)
    with pytest.raises(HilDaftError, match="no such folder"):
        write_overview(tmp_path / "none")


def test_fleets_are_tested_on_both_benches(root: Path, tmp_path: Path) -> None:
    for name, seed, pace in (("hildaft", 0, 1200), ("hildaft", 1, 1200), ("alike", 0, 2400)):
        measured = root / "multi-robot" / f"{name}-s{seed}" / "measured"
        if not measured.exists():
            write_run(measured.parent, seed=seed, episodes=4)
            (measured.parent / "config.yaml").write_text(CONFIG.format(seed=seed))
            measured.mkdir()
        for transitions, solved in ((0, 2), (600, 17), (1200, 19)):
            for robot, successes in (("A", solved), ("B", solved // 2)):
                tasks = [{"task": "pick", "episodes": 20, "successes": successes, "lengths": [50]}]
                minutes = transitions / pace
                curve = {
                    "robot": robot,
                    "transitions": transitions,
                    "clock_minutes": minutes,
                    "tasks": tasks,
                }
                (measured / f"curve-{robot}-{transitions:06d}.json").write_text(json.dumps(curve))
    members = [
        Member(method="hildaft", seed=0, words=(), robots=("A",)),
        Member(method="hildaft", seed=1, words=(), robots=("A", "B")),
        Member(method="alike", seed=0, words=(), robots=("A", "A")),
    ]
    result = StudyResult(
        name="multi-robot", study="multi-robot", command=("x",), members=members, root=root
    )
    text = write_results(result, tmp_path / "out", {})[1].read_text()
    # A alone passes 80 % at half a minute, 95 % at one; averaged over A and B it never does.
    assert "| hildaft | A | 0 | 1200 | 1.0 | 0.5 | 1.0 | 1.0 | 2.0 | 95.0 (" in text
    assert "| hildaft | A + B | 1 | 1200 | 1.0 | not reached | not reached | - | - | 95.0 (" in text
    # Twice as quick as one robot on the same seed, in as many robot minutes.
    assert "| alike | A + A | 0 | 1200 | 0.5 | 0.2 (0.50) | 0.5 (0.50) | 1.0 | 2.0 | 95.0 (" in text
    assert "| hildaft | 1 | B | 0.0: 5; 0.5: 40; 1.0: 45 |" in text
    # From 10 to 85 % within the first quarter of a minute: 80 % at 0.233; 95 % at its end.
    assert "| alike | 0 | 0.2 (0.50) | 0.5 (0.50) |" in text


def test_a_level_is_reached_between_two_evaluations() -> None:
    curve = [(0.0, 0.4), (2.0, 0.8), (4.0, 0.7), (6.0, 1.0)]
    assert minutes_to(curve, 0.6) == pytest.approx(1.0)
    assert minutes_to(curve, 0.85) == pytest.approx(5.0)
    assert minutes_to(curve, 0.3) == 0.0
    assert minutes_to(curve[:3], 0.9) is None
    assert minutes_to([], 0.5) is None


def test_seeds_share_a_curve_wherever_each_was_evaluated() -> None:
    def run(*points: tuple[float, int]) -> dict[str, object]:
        fleet = [
            {
                "robot": "A",
                "transitions": number,
                "clock_minutes": minutes,
                "tasks": [{"successes": solved, "episodes": 10}],
            }
            for number, (minutes, solved) in enumerate(points)
        ]
        return {"robots": ["A", "A"], "fleet": fleet}

    plain = run((0.0, 2), (2.0, 6), (4.0, 10))
    # Stopped and resumed, a fleet is evaluated once more, where that tells nothing new.
    resumed = run((0.0, 2), (1.0, 4), (2.0, 6), (4.0, 10))
    steeper = run((0.0, 4), (3.0, 10))
    for runs in ([plain], [plain, resumed]):
        assert minutes_to(pooled_curve(runs), 0.9) == pytest.approx(3.5)
    minutes, rates = zip(*pooled_curve([plain, steeper]), strict=True)
    assert minutes == pytest.approx((0.0, 2.0, 3.0))
    assert rates == pytest.approx((0.3, 0.7, 0.9))
    assert pooled_curve([]) == []
