"""Two processes never train in one folder; whoever is gone, however, keeps nobody out."""

import contextlib
import os
import re
import subprocess
import sys
import threading

import pytest

from hildaft.algo.crew import Crew
from hildaft.build import open_run, use_run
from hildaft.build_remote import open_learner
from hildaft.config import PRESETS, write_config
from hildaft.runtime.sole_use import sole_use
from hildaft.types import HilDaftError

TINY = PRESETS["tiny"]
IN_USE = "another process uses it"
HOLD = """
import sys, time
from pathlib import Path
from hildaft.runtime.sole_use import sole_use
with sole_use(Path(sys.argv[1]), "run folder", "process"):
    print("in", flush=True)
    time.sleep(600)
"""


def test_another_process_is_named_and_a_killed_one_keeps_nobody_out(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "in\n"
        said = rf"run folder {re.escape(str(tmp_path))}: {IN_USE} \(process {other.pid}\)"
        for _ in range(2):
            with (
                pytest.raises(HilDaftError, match=said),
                sole_use(tmp_path, "run folder", "process"),
            ):
                pass
    finally:
        other.kill()
        other.communicate()
    with sole_use(tmp_path, "run folder", "process"):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(HilDaftError, match="Is a directory; mend"),
        sole_use(tmp_path, "run", "one"),
    ):
        pass


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    write_config(TINY, folder / "config.yaml")
    return folder


@contextlib.contextmanager
def opened(folder, *, resume=True):
    with open_run(TINY, folder, resume=resume, stop=threading.Event()) as session:
        yield
        session._run.metrics.close()


@contextlib.contextmanager
def opened_learner(folder):
    stop = threading.Event()
    with open_learner(
        TINY,
        folder,
        resume=True,
        listen="127.0.0.1:0",
        tls=None,
        stop=stop,
        crew=Crew(),
        evaluate=False,
    ) as (session, _, _):
        yield
        session._run.metrics.close()


def assert_in_use(run):
    with pytest.raises(HilDaftError, match=IN_USE), use_run(run):
        pass


@pytest.mark.parametrize("resume", [opened, opened_learner])
def test_a_run_or_learner_is_alone_in_its_folder(run, resume):
    with use_run(run), pytest.raises(HilDaftError, match=IN_USE), resume(run):
        pass
    with resume(run):
        assert_in_use(run)
    with use_run(run):
        pass


def test_a_new_run_is_alone_too_and_a_folder_that_is_no_run_is_left_alone(tmp_path):
    new, other = tmp_path / "new", tmp_path / "other"
    with opened(new, resume=False):
        assert_in_use(new)
    other.mkdir()
    with pytest.raises(HilDaftError, match="config"), opened(other):
        pass
    assert list(other.iterdir()) == []
