import json
import math
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hildaft.runtime.metrics import RESUMED, MetricsWriter, read_metrics
from hildaft.types import HilDaftError


def write(folder, *rows):
    writer = MetricsWriter(folder, print)
    for step, metrics in rows:
        writer.write(step, 2 * step, metrics)
    writer.close()


def test_rows_come_back_and_a_resumed_run_appends(tmp_path):
    write(tmp_path, (1, {"actor/bc_loss": 0.5}), (2, {"actor/bc_loss": 0.25}))
    write(tmp_path, (3, {"critic/pick/bellman_loss": 1e-9}))
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [row["updates"] for row in rows] == [2, 4, 6]
    assert rows[0]["actor/bc_loss"] == 0.5
    assert rows[2]["critic/pick/bellman_loss"] == 1e-9
    assert rows[0]["time"] <= rows[2]["time"] <= time.time()
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 2


def test_every_line_is_strict_json_even_without_a_value(tmp_path):
    write(tmp_path, (1, {"a": math.nan, "b": math.inf, "c": 1.0}))

    def refuse(constant):
        raise AssertionError(constant)

    [line] = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse)["c"] == 1.0
    [row] = read_metrics(tmp_path)
    assert math.isnan(row["a"])
    assert math.isnan(row["b"])


def test_a_torn_last_line_is_left_out_and_cut_off_on_resume(tmp_path):
    write(tmp_path, (1, {"a": 1.0}), (2, {"a": 2.0}))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]
    write(tmp_path, (3, {"a": 3.0}))
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 3]


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path):
    write(tmp_path, (1, {"a": 1.0}), (2, {"a": 2.0}))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]
    write(tmp_path, (3, {"a": 3.0}))
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    write(tmp_path, (1, {"a": 1.0}), (2, {"a": 2.0}), (3, {"a": 3.0}))
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "nonsense\n" + lines[2])
    with pytest.raises(HilDaftError, match=r"metrics\.jsonl line 2"):
        read_metrics(tmp_path)


def test_no_file_means_no_rows(tmp_path):
    assert read_metrics(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(HilDaftError, match="run"):
        MetricsWriter(tmp_path / "run", print)


def test_threads_may_write_together(tmp_path):
    writer = MetricsWriter(tmp_path, print)
    threads = [
        threading.Thread(
            target=lambda n=n: [writer.write(n, i, {"a": float(i)}) for i in range(100)]
        )
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert len(read_metrics(tmp_path)) == 400


LOOP = """
import sys
from pathlib import Path
from hildaft.runtime.metrics import MetricsWriter
writer = MetricsWriter(Path(sys.argv[1]), print)
for step in range(10**9):
    writer.write(step, step, {"a": float(step)})
    print(step, flush=True)
"""


def test_a_kill_loses_no_row_that_was_written(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(50):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate()
    announced = 50 + len(rest.split())
    write(tmp_path, (10**9, {}))
    steps = [row["step"] for row in read_metrics(tmp_path)]
    assert steps[:announced] == list(range(announced))
    assert steps[-1] == 10**9


def test_the_first_row_after_a_resume_says_so(tmp_path):
    for first in (1, 3):
        writer = MetricsWriter(tmp_path, print)
        writer.write(first, 0, {"loss": 1.0})
        writer.write(first + 1, 0, {"loss": 1.0})
        writer.close()
    assert [RESUMED in row for row in read_metrics(tmp_path)] == [False, False, True, False]


FULL_DISK = """
import resource, sys, threading
from pathlib import Path
from hildaft import cli
from hildaft.runtime.session import Plan, Session
from hildaft.runtime.training_run import TrainingRun

class Learner:
    warmup_updates, online_updates, online_transitions = 1, 0, 0
    def warm_up(self, until, on_metrics, stop):
        # The kernel refuses bytes beyond this size exactly as it does on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
        for update in range(100_000):
            on_metrics(update, {f"m{n}": 0.5 for n in range(20)})

class View:
    def stage(self, name, total): pass
    def advance(self, completed, metrics): pass
    def note(self, text): print("note:", text, file=sys.stderr)

def train(words):
    stop, view = threading.Event(), View()
    run = TrainingRun(Path(words[0]), Learner(), view, stop)
    plan = Plan(tasks=("a",), seed=0, real_time=False, demonstrations=0, warmup_updates=2,
        online_transitions=0, episodes=0, episodes_before=0, episodes_during=0, evaluate_every=1)
    return int(Session(run, plan, None, None, view, stop).run())

cli._command = lambda name: train
cli.main()
"""


def test_a_full_disk_ends_a_run_with_one_line_and_drops_the_mirror_before_that(tmp_path):
    run = tmp_path / "run"
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, "train", str(run)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "HILDAFT_LAUNCHED": "1"},
    )
    note, line = ended.stderr.splitlines()
    assert note.startswith(f"note: {run}/tensorboard: File too large; TensorBoard shows no more")
    assert line.startswith(f"hildaft: metrics file {run}/metrics.jsonl: File too large; free space")
    assert ended.returncode == 2
    # What was written before is whole, long after the mirror ended.
    rows = read_metrics(run)
    assert len(rows) > 100
    assert rows[-1]["warmup/m19"] == 0.5


def test_a_mirror_that_cannot_begin_is_said_and_the_rows_are_written(tmp_path):
    (tmp_path / "tensorboard").write_text("a file")
    said = []
    writer = MetricsWriter(tmp_path, said.append)
    writer.write(1, 2, {"a": 1.0})
    writer.close()
    assert [row["a"] for row in read_metrics(tmp_path)] == [1.0]
    assert len(said) == 1
    assert "TensorBoard shows no more" in said[0]


def test_what_is_mirrored_can_be_read_back(tmp_path):
    write(tmp_path, (7, {"actor/bc_loss": 0.5, "none": math.nan}))
    [path] = (tmp_path / "tensorboard").glob("events*")
    assert b"actor/bc_loss" in path.read_bytes()
    assert b"none" not in path.read_bytes()
