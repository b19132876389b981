"""The `tiny` preset end to end, with real processes: run, kill, resume, evaluate, report."""

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from commands import COMMAND, hildaft, wait_for_episodes
from safetensors.numpy import load_file

from hildaft.data.episodes import EpisodeStore


def newest_state(run: Path) -> dict[str, np.ndarray]:
    return load_file(sorted((run / "checkpoints").iterdir())[-1] / "state.safetensors")


def assert_same_run(one: Path, other: Path) -> None:
    a, b = newest_state(one), newest_state(other)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    stores = EpisodeStore(one / "episodes"), EpisodeStore(other / "episodes")
    assert len(stores[0]) == len(stores[1])
    for index in range(len(stores[0])):
        left, right = stores[0].read(index), stores[1].read(index)
        np.testing.assert_array_equal(left.executed_action, right.executed_action)
        np.testing.assert_array_equal(left.h, right.h)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    result = hildaft("train", "tiny", "--out", str(run))
    assert result.returncode == 0, result.stderr
    return run


def test_run_leaves_everything_behind(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"config.yaml", "run.json", "metrics.jsonl", "episodes", "checkpoints"} <= names
    assert (finished / "report" / "index.html").stat().st_size > 10_000
    evaluations = sorted(path.name for path in (finished / "evaluations").iterdir())
    assert evaluations[0] == "000000-warmup.json"
    assert evaluations[-1].endswith("-final.json")
    summaries = EpisodeStore(finished / "episodes").summaries()
    assert [s.source for s in summaries[:6]] == ["demo"] * 6
    assert {s.source for s in summaries[6:]} == {"online"}
    assert all(s.success for s in summaries[:6])


def test_killed_run_resumes_to_the_same_weights_and_episodes(
    finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    process = subprocess.Popen(
        [*COMMAND, "train", "tiny", "--out", str(run)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Eight episodes: the six demonstrations, one online, and the next under way.
    wait_for_episodes(process, run, 8)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    resumed = hildaft("train", "--out", str(run), "--resume")

    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(finished, run)


def test_stopped_run_says_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "stopped"
    process = subprocess.Popen(
        [*COMMAND, "train", "tiny", "--out", str(run)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_episodes(process, run, 1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "--resume" in errors


def test_evaluation_prints_every_outcome(finished: Path) -> None:
    nothing = hildaft("eval", str(finished), "--talk-always")
    assert nothing.returncode == 2
    assert "--talk-always with --talk none" in nothing.stderr
    words = ["eval", str(finished), "--episodes", "1", "--talk", "opposite", "--json"]
    result = hildaft(*words)
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert [task["task"] for task in document["tasks"]] == ["upright", "pick", "assemble"]
    assert all(len(task["outcomes"]) == task["episodes"] == 1 for task in document["tasks"])
    assert hildaft(*words).stdout == result.stdout


def test_damaged_checkpoint_falls_back_and_says_so(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(finished), str(run)], check=True)
    newest = sorted((run / "checkpoints").iterdir())[-1] / "state.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    result = hildaft("eval", str(run), "--episodes", "1", "--tasks", "pick")
    assert result.returncode == 0, result.stderr
    assert "damaged" in result.stderr


def test_damaged_episode_stops_the_resume_and_loses_nothing(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(finished), str(run)], check=True)
    victim = sorted((run / "episodes").glob("*.safetensors"))[3]
    victim.write_bytes(victim.read_bytes()[:-100])
    before = sorted(path.name for path in (run / "episodes").iterdir())
    result = hildaft("train", "--out", str(run), "--resume")
    assert result.returncode == 2
    assert victim.name in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in (run / "episodes").iterdir()) == before

    # As the line advises.
    victim.rename(tmp_path / victim.name)
    result = hildaft("train", "--out", str(run), "--resume")
    assert result.returncode == 0, result.stderr
    assert "1 of " in result.stdout + result.stderr


def test_paper_preset_runs_end_to_end(tmp_path: Path) -> None:
    run = tmp_path / "paper"
    amounts = {
        "tasks": "pick",
        "training.demonstrations": "1",
        "training.warmup-updates": "4",
        "training.online-transitions": "110",
        "training.batch-size": "16",
        "training.update-to-data": "0.1",
        "training.rollout-gate": "10",
        "training.talk-tweak-gate": "1",
        "evaluation.episodes": "1",
        "evaluation.episodes-before": "1",
        "evaluation.every": "1000",
    }
    words = [word for name, value in amounts.items() for word in (f"--{name}", value)]
    result = hildaft("train", "paper", "--out", str(run), *words)
    assert result.returncode == 0, result.stderr
    metrics = (run / "metrics.jsonl").read_text()
    assert '"refinement/bc_loss"' in metrics
    assert "spread_mm" in metrics


def test_the_finished_run_is_measured_over_chains_and_drawn(finished: Path) -> None:
    result = hildaft("chain", str(finished), "--bolts", "1", "--chains", "1", "--json")
    assert result.returncode == 0, result.stderr
    [chain] = json.loads(result.stdout)["chains"]
    assert chain["success"] == (chain["reason"] is None)
    result = hildaft("draw-commands", str(finished))
    assert result.returncode == 0, result.stderr
    assert (finished / "report" / "commands.png").stat().st_size > 20_000


def test_another_run_starts_from_its_demonstrations(finished: Path, tmp_path: Path) -> None:
    words = (
        "train",
        "hg-dagger",
        "--out",
        str(tmp_path / "other"),
        "--demonstrations",
        str(finished),
    )
    short = (
        "--training.demonstrations=2",
        "--training.warmup-updates=2",
        "--training.online-transitions=0",
    )
    few = ("--evaluation.episodes=1", "--evaluation.episodes-before=1")
    result = hildaft(*words, *short, *few)
    assert result.returncode == 0, result.stderr
    stores = EpisodeStore(finished / "episodes"), EpisodeStore(tmp_path / "other" / "episodes")
    assert len(stores[1]) == 6
    for index in range(6):
        np.testing.assert_array_equal(stores[0].read(index).h, stores[1].read(index).h)


def test_corrections_of_a_runs_policy_are_recorded_and_learned_from(
    finished: Path, tmp_path: Path
) -> None:
    recorded = tmp_path / "corrections"
    words = ("record", "--policy", str(finished), "--operator", "simulated", "--out", str(recorded))
    result = hildaft(*words, "--tasks", "pick", "--episodes", "2")
    assert result.returncode == 0, result.stderr
    assert "by hand" in result.stdout
    summaries = EpisodeStore(recorded / "episodes").summaries()
    assert [(s.task, s.source) for s in summaries] == [("pick", "online")] * 2
    assert len({s.seed for s in summaries}) == 2
    assert sum(s.interventions for s in summaries) > 0
    steps = sum(s.steps for s in summaries)

    run = tmp_path / "run"
    given = ("--demonstrations", str(finished), "--corrections", str(recorded), "--tasks", "pick")
    amounts = (f"--training.online-transitions={steps}", "--training.update-to-data=0.2")
    trained = hildaft("train", "tiny", "--out", str(run), *given, *amounts)
    assert trained.returncode == 0, trained.stderr
    # The robot had nothing to add: the online stage was theirs alone, and it trained the refinement actor.
    kept = EpisodeStore(run / "episodes").summaries()
    assert [s.seed for s in kept if s.source == "online"] == [s.seed for s in summaries]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("refinement/bc_loss" in row for row in rows)
