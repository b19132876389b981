"""A learner and two workers as a user runs them, each killed once on the way: nothing acknowledged is missing."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from commands import COMMAND, hildaft

from hildaft.commands import link
from hildaft.data.episodes import EpisodeStore
from hildaft.eval.evaluate import read_evaluations
from hildaft.types import HilDaftError


def start(log: Path, *words: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen([*COMMAND, *words], stdout=out, stderr=out)


def wait_for_episodes(run: Path, wanted: int, *logs: Path) -> None:
    end = time.monotonic() + 600
    while len(list((run / "episodes").glob("[0-9]*.safetensors"))) < wanted:
        assert time.monotonic() < end, "\n".join(log.read_text()[-2000:] for log in logs)
        time.sleep(0.02)


def robots_of(address: str, *token: str) -> set[str]:
    """Whose workers have joined: on a busy machine one may be at work before the other is there."""
    status = hildaft("status", "--learner", address, *token, "--json")
    return {worker["robot"] for worker in json.loads(status.stdout)["workers"]}


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_two_robots_train_one_policy_through_kills_of_everything(tmp_path: Path) -> None:
    run, address = tmp_path / "run", f"127.0.0.1:{free_port()}"
    logs = {name: tmp_path / f"{name}.log" for name in ("learner", "a", "b")}
    first = ["learner", "tiny", "--out", str(run), "--listen", address]
    again = ["learner", "--out", str(run), "--listen", address, "--resume"]
    token = ["--token-file", str(run / "token")]

    def worker(name: str, robot: str) -> subprocess.Popen[bytes]:
        words = ["--robot", robot, "--name", name, "--spool", str(tmp_path / f"spool-{name}")]
        return start(logs[name], "worker", "--learner", address, *token, *words)

    learner = start(logs["learner"], *first, "--training.online-transitions", "200")
    processes = [learner]
    try:
        while not (run / "token").exists():
            assert learner.poll() is None, logs["learner"].read_text()
            time.sleep(0.05)
        processes += [worker("a", "A"), worker("b", "B")]
        wait_for_episodes(run, 7, *logs.values())
        end = time.monotonic() + 240
        while robots_of(address, *token) != {"A", "B"}:
            assert time.monotonic() < end, "\n".join(log.read_text() for log in logs.values())
        assert "a." in hildaft("status", "--learner", address, *token).stdout

        for victim in processes[:2]:
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
        confirmed = {
            (s.origin.worker, s.origin.sequence)
            for s in EpisodeStore(run / "episodes").summaries()
            if s.origin is not None
        }
        processes += [start(logs["learner"], *again), worker("a", "A")]
        for process in processes[2:]:
            assert process.wait(600) == 0, "\n".join(log.read_text() for log in logs.values())
    finally:
        for process in processes:
            process.kill()
            process.wait()
    store = EpisodeStore(run / "episodes")
    origins = [(s.origin.worker, s.origin.sequence) for s in store.summaries() if s.origin]
    assert store.verify() == []
    assert confirmed <= set(origins)
    assert len(origins) == len(set(origins)) == len(store)
    # Their numbers run through the evaluation episodes, which are kept apart.
    apart = EpisodeStore(run / "evaluations" / "episodes").summaries()
    origins += [(s.origin.worker, s.origin.sequence) for s in apart if s.origin]
    origins.sort()
    for name in {worker for worker, _ in origins}:
        numbers = [number for worker, number in origins if worker == name]
        assert numbers == list(range(1, len(numbers) + 1))
    assert {s.robot for s in store.summaries() if s.source == "online"} == {"A", "B"}
    evaluations = read_evaluations(run)
    assert [e.name for e in evaluations] == ["warmup", "online", "final"]
    assert [len(task.outcomes) for e in evaluations for task in e.result.tasks] == [1] * 9
    robots = {o.robot for e in evaluations for task in e.result.tasks for o in task.outcomes}
    assert robots <= {"A", "B"}
    assert evaluations[-1].diagnostics.keys() >= {"spread_mm"}
    online = sum(s.steps for s in store.summaries() if s.source == "online")
    assert online >= 200
    assert not list((tmp_path / "spool-a").glob("*/0*.safetensors"))


def test_a_fleet_trains_by_the_clock_and_is_evaluated_beside_it(tmp_path: Path) -> None:
    run = tmp_path / "fleet"
    amounts = ("--training.online-transitions", "60", "--evaluation.every", "100")
    ended = hildaft("fleet", "tiny", "--robots", "A", "--out", str(run), *amounts)
    assert ended.returncode == 0, ended.stderr
    curves = [json.loads(f.read_text()) for f in sorted((run / "measured").glob("curve-*.json"))]
    last = curves[-1]["transitions"]
    # Nobody trained on B: it is met first and last only.
    assert [(c["robot"], c["transitions"]) for c in curves] == [
        *(("A", 0), ("A", last), ("B", 0), ("B", last))
    ]
    # The bench alone evaluates; the robot, which goes by the clock, does not.
    assert len(EpisodeStore(run / "evaluations" / "episodes")) == 0
    assert [e.name for e in read_evaluations(run)] == ["warmup", "final"]
    minutes = curves[1]["clock_minutes"]
    assert 0 < minutes < 5
    again = hildaft("fleet", "--robots", "A", "--out", str(run), "--resume")
    assert again.returncode == 0, again.stderr
    assert len(list((run / "measured").iterdir())) == len(curves)
    # Another fleet of that seed may start from the same demonstrations; nobody records any then.
    more = tmp_path / "more"
    robots = ("--robots", "A", "A", "--demonstrations", str(run))
    ended = hildaft("fleet", "tiny", *robots, "--out", str(more), *amounts)
    assert ended.returncode == 0, ended.stderr
    kept, taken = (
        {
            s.seed: (s.task, s.steps)
            for s in EpisodeStore(folder / "episodes").summaries()
            if s.source == "demo"
        }
        for folder in (run, more)
    )
    assert taken.items() <= kept.items()
    assert len(taken) == 6
    workers = {s.origin.worker for s in EpisodeStore(more / "episodes").summaries() if s.origin}
    assert len(workers) == 2


MISTAKES = {
    ("worker", "--learner", "127.0.0.1:1"): "HILDAFT_TOKEN",
    ("worker", "--token-file", "nowhere"): "cannot be read",
    ("worker", "--spool-gib", "0"): "--spool-gib 0",
    ("worker", "--learner", "10.0.0.1:1", "--token-file", "token"): "needs TLS",
    ("status", "--learner", "nowhere", "--token-file", "token"): "HOST:PORT",
    ("status", "--learner", "127.0.0.1:1", "--token-file", "token"): "no answer",
    ("certs", "learner"): "--hosts",
    ("certs", "a b"): "worker name='a b'",
    ("learner", "tiny", "--listen", "0.0.0.0:0", "--out", "run"): "needs TLS",
    ("learner", "tinny"): "did you mean 'tiny'",
}


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_mistakes_are_one_line(words, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("a token that is long enough")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(HilDaftError, match=re.escape(MISTAKES[words])) as caught:
        getattr(link, words[0])(words[1:])
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["token"]
