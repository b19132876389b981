"""Many runs and one table; what is skipped, named, refused. Real processes where runs are made."""

import importlib.util
import json
import signal
import subprocess
import sys
import threading

import pytest

from hildaft.build import use_run
from hildaft.commands.sweep import sweep
from hildaft.eval.sweep import Ending, Job, SweepPlan, Variant, plan_jobs, run_job, run_locally
from hildaft.eval.sweep_ray import run_on_ray
from hildaft.eval.sweep_table import write_results
from hildaft.types import HilDaftError
from link_peers import wait_until
from run_folders import write_run

PLAN = SweepPlan(
    seeds=(0, 1),
    variants={
        "ours": Variant(),
        "no-x2": Variant(preset="tiny", options={"method.counterfactual_weight": 0.0}),
    },
    options={"method.reweight_tasks": False, "tasks": "pick upright"},
)
BROKEN = SweepPlan(
    seeds=(0,), variants={"whole": Variant(), "broken": Variant(options={"tasks": "fly"})}
)


def test_jobs_are_seeds_times_variants_as_train_is_called(tmp_path):
    jobs = plan_jobs(PLAN, tmp_path)
    assert [job.name for job in jobs] == [
        "ours/seed-0",
        "no-x2/seed-0",
        "ours/seed-1",
        "no-x2/seed-1",
    ]
    assert jobs[3].words == (
        *("train", "tiny", "--out", str(tmp_path / "no-x2" / "seed-1"), "--seed", "1"),
        "--method.no-reweight-tasks",
        *("--tasks", "pick", "upright"),
        *("--method.counterfactual-weight", "0.0"),
    )


def test_a_variant_keeps_its_meaning_while_seeds_and_variants_are_added(tmp_path):
    plan_jobs(PLAN, tmp_path)
    more = SweepPlan(seeds=(5,), variants={**PLAN.variants, "paper": Variant(preset="paper")})
    with pytest.raises(HilDaftError, match="variant 'ours' was begun as"):
        plan_jobs(more, tmp_path)
    same = SweepPlan(seeds=(5,), variants=more.variants, options=PLAN.options)
    assert len(plan_jobs(same, tmp_path)) == 3
    assert len(plan_jobs(PLAN, tmp_path)) == 4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"seeds": ()}, "seeds="),
        ({"seeds": (1, 1)}, "seeds="),
        ({"variants": {}}, "none given"),
        ({"variants": {"../x": Variant()}}, "variants='../x'"),
        ({"options": {"out": "x"}}, "options='out'"),
    ],
)
def test_plans_that_make_no_sense_are_one_line(fields, said):
    with pytest.raises(HilDaftError, match=said) as caught:
        SweepPlan(**{"seeds": (0,), "variants": {"ours": Variant()}, **fields})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["here", "ray"])
def test_a_run_that_fails_is_named_and_stops_no_other(tmp_path, place):
    if place == "ray" and importlib.util.find_spec("ray") is None:
        with pytest.raises(HilDaftError, match="ray is not installed"):
            run_on_ray("local", 1.0, 0.0)
        pytest.skip("needs the extra `ray`")
    launch = run_locally(2) if place == "here" else run_on_ray("local", 1.0, 0.0)
    whole, broken = plan_jobs(BROKEN, tmp_path)
    write_run(whole.folder)
    endings = list(launch([broken, whole], threading.Event()))
    states = {ending.job.variant: ending for ending in endings}
    assert states["whole"].state == "finished"
    # Finished before: nothing was run.
    assert not whole.log.exists()
    assert states["broken"].state == "failed"
    assert "tasks='fly'" in states["broken"].reason
    assert broken.log.exists()

    text = write_results(tmp_path, "hildaft sweep", [states["whole"], states["broken"]])
    assert "| whole | 1 of 1 |" in text
    assert "| broken | 0 of 1 | - | - | - | - | - |" in text
    assert "- broken/seed-0 failed: exit code 2: hildaft: tasks='fly'" in text
    document = json.loads((tmp_path / "results.json").read_text())
    assert [run["method"] for run in document["runs"]] == ["whole"]
    assert [run["run"] for run in document["unfinished"]] == ["broken/seed-0"]
    assert (tmp_path / "results.md").read_text().endswith(text + "\n")


def test_a_stopped_sweep_leaves_runs_that_go_on(tmp_path):
    job = Job(
        variant="ours",
        seed=0,
        folder=tmp_path / "ours" / "seed-0",
        words=("train", "tiny", "--out", str(tmp_path / "ours" / "seed-0")),
    )
    stop, endings = threading.Event(), []
    thread = threading.Thread(target=lambda: endings.extend(run_locally(1)([job, job], stop)))
    thread.start()
    wait_until(lambda: list(job.folder.glob("episodes/0*.safetensors")), 600)
    stop.set()
    thread.join(600)
    assert [ending.state for ending in endings] == ["stopped", "stopped"]
    assert "--resume" in job.log.read_text()
    # The next time it is told to go on, not to begin.
    assert run_job(job, stop) == Ending(job=job, state="stopped")
    assert "exists; go on" not in job.log.read_text()


def test_a_sweep_whose_terminal_closes_stops_its_runs(tmp_path):
    words = ["sweep", "tiny", "--seeds", "0", "--out", str(tmp_path)]
    folder = tmp_path / "tiny" / "seed-0"
    process = subprocess.Popen(
        [sys.executable, "-m", "hildaft.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # The suite itself may run under nohup.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    wait_until(lambda: list(folder.glob("episodes/0*.safetensors")), 600)
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "tiny/seed-0 stopped" in said
    # Nobody is left in the run's folder: the next sweep can go on with it.
    with use_run(folder):
        pass


def test_what_nohup_has_switched_off_stays_off():
    script = (
        "import os, signal; from hildaft.commands.signals import stop_on_signals\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "stop = stop_on_signals(signal.SIGHUP)\n"
        "os.kill(os.getpid(), signal.SIGHUP); assert not stop.is_set()\n"
        "os.kill(os.getpid(), signal.SIGTERM); assert stop.is_set()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_the_table_gives_means_over_seeds(tmp_path):
    jobs = plan_jobs(SweepPlan(seeds=(0, 1), variants={"ours": Variant()}), tmp_path)
    for job in jobs:
        write_run(job.folder, seed=job.seed)
    endings = [Ending(job=job, state="finished") for job in jobs]
    [row] = [
        line for line in write_results(tmp_path, "x", endings).splitlines() if "| ours" in line
    ]
    assert "| 2 of 2 |" in row
    assert row.count("±") == 2
    [first, second] = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert (first["seed"], second["seed"]) == (0, 1)
    assert len(first["curve"]) == 7
    assert first["metrics"]["obedience"] == 0.9


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tinny"], "did you mean 'tiny'"),
        (["tiny", "tiny"], "different presets"),
        ([], "different presets"),
        (["none.yaml"], "no such file"),
        (["tiny", "--jobs", "0"], "--jobs 0"),
    ],
)
def test_mistakes_are_one_line(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HilDaftError, match=said) as caught:
        sweep(words)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_yaml_file_says_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "seeds: [0]\noptions: {training.batch_size: 24}\n"
        "variants:\n  whole: {preset: tiny, options: {method.q: 1.5, method.on: true}}\n"
    )
    write_run(tmp_path / "out" / "whole" / "seed-0")
    assert sweep([str(file), "--out", str(tmp_path / "out")]) == 0
    begun = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert begun == {
        "whole": {
            "preset": "tiny",
            "options": {"training.batch_size": 24, "method.q": 1.5, "method.on": True},
        }
    }
