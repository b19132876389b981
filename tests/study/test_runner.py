"""The runner with a program that stands in for `hildaft`: real processes, real kills."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hildaft.study.grid import Amounts, Measurement, Member, require_keys, train_words
from hildaft.study.runner import Runner, is_done, next_step, run_folder
from hildaft.study.studies import FLEETS, METHODS, STUDIES, choose, plan_study
from hildaft.types import HilDaftError

PROGRAM = """
import json, pathlib, signal, sys, time
words = sys.argv[1:]
if words[0] == "show":
    print(json.dumps({"run": words[1]}))
    sys.exit(0)
out = pathlib.Path(words[words.index("--out") + 1])
resume = "--resume" in words
if not resume:
    out.mkdir()
    (out / "config.yaml").write_text("seed: 0\\ntraining: {demonstrations: 1}\\n")
with (out / "calls").open("a") as file:
    file.write(" ".join(words) + "\\n")
if "fails" in words:
    print("no room", file=sys.stderr)
    sys.exit(2)
if "waits" in words and not resume:
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    (out / "waiting").touch()
    while not stop:
        time.sleep(0.01)
    (out / "checkpoint").touch()
    sys.exit(130)
(out / "evaluations").mkdir()
(out / "evaluations" / "000010-final.json").touch()
"""

SHOW = Measurement(name="shown", words=lambda run: ("show", str(run)))


def member(name: str, *words: str, measurements: tuple[Measurement, ...] = ()) -> Member:
    demonstrations = "--training.demonstrations=1"
    return Member(
        method=name, seed=0, words=("hildaft", demonstrations, *words), measurements=measurements
    )


@pytest.fixture
def run_study(tmp_path: Path) -> Callable[..., tuple[Runner, bool]]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def run(
        members: Sequence[Member],
        budget_s: float = 300.0,
        jobs: int = 2,
        done: Callable[[], None] = lambda: None,
    ) -> tuple[Runner, bool]:
        runner = Runner(
            "s",
            members,
            tmp_path / "study",
            jobs=jobs,
            say=lambda line: None,
            on_done=done,
            program=(sys.executable, str(program)),
        )
        return runner, runner.run(time.monotonic() + budget_s, lambda: False)

    return run


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_what_is_finished_is_never_run_again(
    tmp_path: Path, run_study: Callable[..., tuple[Runner, bool]]
) -> None:
    members = [member("one", measurements=(SHOW,)), member("two")]
    told: list[int] = []
    assert run_study(members, done=lambda: told.append(1))[1]
    assert run_study(members)[1]
    folder = tmp_path / "study" / "s" / "one-s0"
    assert len(calls(folder)) == 1
    assert json.loads((folder / "measured" / "shown.json").read_text()) == {"run": str(folder)}
    assert is_done(folder, members[0])
    assert len(told) == 2


def test_a_budget_stops_runs_gently_and_the_next_call_resumes_them(
    tmp_path: Path, run_study: Callable[..., tuple[Runner, bool]]
) -> None:
    members = [member("slow", "waits"), member("quick"), member("never", "waits")]
    folder = tmp_path / "study" / "s" / "slow-s0"
    runner, finished = run_study(members, budget_s=5.0, jobs=1)
    assert not finished
    assert (folder / "checkpoint").exists()
    assert not (tmp_path / "study" / "s" / "quick-s0").exists()
    assert runner.failures == {}
    assert run_study(members[:2])[1]
    assert "--resume" in calls(folder)[1]


def test_a_killed_run_is_gone_on_with(
    tmp_path: Path, run_study: Callable[..., tuple[Runner, bool]]
) -> None:
    folder = tmp_path / "study" / "s" / "slow-s0"
    killer = threading.Thread(target=_kill_once_waiting, args=(folder,))
    killer.start()
    runner, finished = run_study([member("slow", "waits")])
    killer.join()
    assert not finished
    assert "code -9" in runner.failures[str(folder)]
    assert run_study([member("slow", "waits")])[1]


def _kill_once_waiting(folder: Path) -> None:
    end = time.monotonic() + 120
    while not (folder / "waiting").exists() and time.monotonic() < end:
        time.sleep(0.01)
    listed = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True).stdout
    for pid in listed.split():
        os.kill(int(pid), signal.SIGKILL)


def test_a_failure_is_told_and_the_others_go_on(
    tmp_path: Path, run_study: Callable[..., tuple[Runner, bool]]
) -> None:
    runner, finished = run_study([member("bad", "fails"), member("good")])
    assert not finished
    assert runner.failures == {
        str(tmp_path / "study" / "s" / "bad-s0"): "train ended with code 2: no room"
    }
    assert (tmp_path / "study" / "s" / "good-s0" / "evaluations").is_dir()


def test_a_study_whose_run_cannot_be_made_says_so_by_its_exit_code(tmp_path: Path) -> None:
    words = ["study", "long-horizon", "--run", str(tmp_path / "none"), "--root", str(tmp_path)]
    ended = subprocess.run(
        [sys.executable, "-m", "hildaft.cli", *words, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "it is not finished" in ended.stderr


def test_a_run_another_process_is_at_is_left_alone(
    tmp_path: Path, run_study: Callable[..., tuple[Runner, bool]]
) -> None:
    other = Runner("s", [], tmp_path / "study", jobs=1, say=print, on_done=lambda: None)
    folder = tmp_path / "study" / "s" / "one-s0"
    lock = other._lock(folder)
    assert lock is not None
    runner, finished = run_study([member("one")])
    os.close(lock)
    assert not finished
    assert runner.failures == {str(folder): "another process is at it"}
    assert not folder.exists()


def test_a_seeds_demonstrations_are_taken_from_a_run_that_has_them(
    tmp_path: Path, run_study: Callable[..., tuple[Runner, bool]]
) -> None:
    assert run_study([member("one"), member("two"), member("other", "--operator.noise=1")], jobs=1)[
        1
    ]
    study = tmp_path / "study" / "s"
    assert calls(study / "two-s0")[0].endswith(f"--demonstrations {study / 'one-s0'}")
    assert "--demonstrations " not in calls(study / "other-s0")[0]


def test_fleets_of_a_seed_share_demonstrations_too(tmp_path: Path) -> None:
    donor = tmp_path / "one-s0"
    (donor / "evaluations").mkdir(parents=True)
    (donor / "evaluations" / "000010-final.json").touch()
    (donor / "config.yaml").write_text("seed: 0\ntraining: {demonstrations: 1}\n")
    fleet = replace(member("two"), robots=("A", "A"))
    step = next_step(tmp_path / "two-s0", fleet, [donor])
    assert step is not None
    assert step.words[0] == "fleet"
    assert step.words[-2:] == ("--demonstrations", str(donor))


def test_a_folder_without_a_config_is_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "one-s0"
    (folder / "episodes.part").mkdir(parents=True)
    step = next_step(folder, member("one"), [])
    assert step is not None
    assert "--resume" not in step.words
    assert not folder.exists()


def test_a_given_run_must_be_finished(tmp_path: Path) -> None:
    given = Member(method="given", seed=0, words=(), given=tmp_path, measurements=(SHOW,))
    with pytest.raises(HilDaftError, match="not finished"):
        next_step(tmp_path, given, [])


class TestGrids:
    def plan(self, name: str, **changes: object) -> list[Member]:
        given: dict[str, object] = {
            "seeds": (0, 1),
            "quick": False,
            "transitions": None,
            "runs": (),
        }
        return plan_study(name, **{**given, **changes})  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", STUDIES)
    @pytest.mark.parametrize("quick", [True, False])
    def test_every_run_is_a_config_that_train_takes(self, name: str, quick: bool) -> None:
        from hildaft.commands.parse import parse_words
        from hildaft.config import PRESETS, RunConfig

        for each in self.plan(name, quick=quick, seeds=(0,)):
            config = parse_words(RunConfig, "x", each.words[1:], PRESETS[each.words[0]])
            total = config.training.warmup_updates + config.training.online_transitions
            assert total in {17_000, 2_700, 3_500}, each.method

    def test_table1_and_fig5_share_runs(self) -> None:
        root = Path("r")
        table, figure = self.plan("table1"), self.plan("fig5")
        places = {run_folder(root, "table1", each) for each in table}
        assert {run_folder(root, "fig5", each) for each in figure} <= places
        words = {(each.key, each.words) for each in table}
        assert {(each.key, each.words) for each in figure} <= words

    def test_the_quick_form_has_the_methods_that_it_can_order(self) -> None:
        quick = {each.method for each in self.plan("table1", quick=True, seeds=(0,))}
        assert METHODS.keys() - quick == {"paper", "dsrl-offline", "dsrl-sac", "dsrl-direct"}

    def test_variants_wait_until_the_main_methods_have_all_their_seeds(self) -> None:
        order = [each.method for each in self.plan("table1", seeds=(0, 1, 2))]
        assert set(order[:21]) == METHODS.keys() - {"dsrl-offline", "dsrl-sac", "dsrl-direct"}

    def test_fleets_hold_a_alone_a_and_b_and_more(self) -> None:
        robots = [each.robots for each in self.plan("multi-robot", seeds=(0,))]
        assert robots == list(FLEETS.values())
        assert ("A",) in robots
        assert ("A", "B") in robots
        assert max(map(len, robots)) == 4

    def test_methods_and_seeds_are_chosen_from_the_whole_study(self) -> None:
        whole = self.plan("table1")
        assert choose(whole, (), ()) == whole
        few = choose(whole, ("bc", "dsrl"), (1,))
        assert [member.key for member in few] == ["dsrl-s1", "bc-s1"]

    def test_cloning_gets_all_updates_offline(self) -> None:
        words = train_words("bc", Amounts(warmup_updates=30, transitions=12))
        assert "--training.warmup-updates=42" in words
        assert "--training.online-transitions=0" in words

    def test_mistakes_are_named(self) -> None:
        with pytest.raises(HilDaftError, match="--only nobody"):
            choose(self.plan("table1"), ("nobody",), ())
        with pytest.raises(HilDaftError, match="each run once"):
            self.plan("long-horizon", runs=(Path("x"), Path("y/../x")))
        with pytest.raises(HilDaftError, match="trains its own runs"):
            self.plan("table1", runs=(Path("x"),))
        with pytest.raises(HilDaftError, match="each seed once"):
            self.plan("table1", seeds=(0, 0))
        assert len(require_keys(self.plan("ablations"))) > 40
