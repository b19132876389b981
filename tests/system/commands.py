"""The `hildaft` command as a user runs it: a process of its own."""

import os
import subprocess
import sys
import time

COMMAND = [sys.executable, "-m", "hildaft.cli"]


def hildaft(*words, timeout=1800, **environment):
    return subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **environment},
    )


def wait_for_episodes(process, run, wanted):
    """Returns once the process has stored so many episodes."""
    deadline = time.monotonic() + 1200
    while len(list((run / "episodes").glob("[0-9]*.safetensors"))) < wanted:
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < deadline, f"the run made fewer than {wanted} episodes"
        time.sleep(0.02)
