"""A user's mistake is one line on stderr and exit code 2; nothing is overwritten."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from commands import COMMAND, hildaft

from hildaft.cli import READER_GONE, STOPPED


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "papr"], "did you mean 'paper'"),
        (["train", "tiny", "--tasks", "upright", "pikc"], "did you mean 'pick'"),
        (["train", "tiny", "--seed", "-1"], "seed=-1"),
        (["train", "tiny", "--training.batch-size", "0"], "batch_size=0"),
        (["train", "tiny", "--training.update-to-data", "0"], "update_to_data=0"),
        (["train", "tiny", "--method.discount", "1.5"], "discount=1.5"),
        (["train", "tiny", "--evaluation.episodes", "0"], "evaluation.episodes=0"),
        (["eval", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["report"], "no run folder"),
    ],
)
def test_one_clear_line(tmp_path: Path, words: list[str], expected: str) -> None:
    out = ["--out", str(tmp_path / "run")] if words[0] == "train" else []
    result = hildaft(*words, *out)
    assert result.returncode == 2
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["train", "tiny", "--sede", "1"], ["train", "--seed", "one"]])
def test_unknown_or_ill_typed_option(tmp_path: Path, words: list[str]) -> None:
    result = hildaft(*words, "--out", str(tmp_path / "run"))
    assert result.returncode == 2
    assert "--seed" in result.stdout + result.stderr
    assert not (tmp_path / "run").exists()


def test_existing_run_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    result = hildaft("train", "tiny", "--out", str(tmp_path))
    assert result.returncode == 2
    assert "--resume" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_damaged_config_names_the_field(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\ntrainig: {}\n")
    result = hildaft("train", "--out", str(tmp_path), "--resume")
    assert result.returncode == 2
    assert "trainig" in result.stderr
    assert result.stderr.count("\n") == 1


def test_missing_gl_is_named_before_anything_is_written(tmp_path: Path) -> None:
    result = hildaft("train", "tiny", "--out", str(tmp_path / "run"), MUJOCO_GL="nonsense")
    assert result.returncode == 2
    assert "MUJOCO_GL" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["talk", "left"], ["doctor", "--udev"]])
def test_a_reader_that_goes_ends_it_without_a_word(words: list[str]) -> None:
    """`hildaft ... | head -0`."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        ended = subprocess.run(
            [*COMMAND, *words], stdout=gone, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ended.returncode, ended.stderr) == (READER_GONE, "")


def start_listening_to_ctrl_c() -> None:
    # The suite itself may run in the background of a shell, which switches it off.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def listening(*words: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], IO[str], IO[str]]]:
    """A process that takes Ctrl-C, with what it says and its complaints."""
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
        preexec_fn=start_listening_to_ctrl_c,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        yield process, process.stdout, process.stderr


def test_ctrl_c_is_one_line_and_its_exit_code() -> None:
    """`hildaft talk` that waits for words."""
    with listening(*COMMAND, "talk", PYTHONUNBUFFERED="1") as (process, output, errors):
        # It has begun: what a process is told before its first line is Python's to answer.
        assert output.readline().startswith("forward is")
        process.send_signal(signal.SIGINT)
        said = errors.read()
        assert process.wait(600) == STOPPED
    assert said == "hildaft: talk was stopped\n"


SLOW = """
import sys, time
from hildaft import cli

def slow(words):
    print("held back until the end")
    print("begun", file=sys.stderr, flush=True)
    time.sleep(600)

cli._command = lambda name: slow
cli.main()
"""


def test_ctrl_c_behind_a_pipe_whose_reader_it_has_ended_too() -> None:
    words = (sys.executable, "-c", SLOW, "report")
    with listening(*words, HILDAFT_LAUNCHED="1") as (process, output, errors):
        assert errors.readline() == "begun\n"
        output.close()
        process.send_signal(signal.SIGINT)
        said = errors.read()
        assert process.wait(600) == STOPPED
    assert said == "hildaft: report was stopped\n"


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "gymnasium"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
from hildaft.cli import main
main()
"""


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["train", "tiny"], 2, "train: needs torch, which is not installed here; pip install 'hil"),
        (["trian"], 2, "did you mean 'train'"),
        (["check-robot", "examples/robots/nothing.yaml"], 2, "there is no such file"),
        (["check-robot", "examples/robots/franka_serl.yaml"], 2, "Connection refused"),
        (["check-env", "examples/gymnasium/dot_reach.yaml"], 2, "pip install 'hildaft[sim]'"),
        (["talk", "left"], 0, ""),
    ],
)
def test_where_only_the_base_is_installed(words: list[str], code: int, expected: str) -> None:
    """As on a robot's own computer: arms and words work, the rest names the extra it needs."""
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HILDAFT_LAUNCHED": "1"},
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (code, int(code > 0)), ended.stderr
    assert expected in ended.stderr
