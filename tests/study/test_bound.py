import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells children of their parent's death"
)
def test_a_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    parent = (
        "import sys, time\n"
        "from hildaft.study.bound import start_bound\n"
        "with open(sys.argv[1], 'wb') as file:\n"
        "    child = start_bound((sys.executable, '-c', 'import time; time.sleep(600)'), file)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    os.kill(child, 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    end = time.monotonic() + 120
    while time.monotonic() < end and _lives(child):
        time.sleep(0.01)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    # An orphan may stay a zombie where no process reaps it.
    return state != "Z"
