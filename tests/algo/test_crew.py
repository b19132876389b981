"""Two gloo processes make the updates that one process makes with the same total batch."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from hildaft.algo.crew import Crew, Order
from hildaft.types import HilDaftError
from link_peers import wait_until

PROCESS = Path(__file__).with_name("crew_process.py")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def start(command, size):
    """The processes with the environment that torchrun gives them."""
    port = free_port()
    source = str(PROCESS.parents[2] / "src")
    return [
        subprocess.Popen(
            command,
            env={
                **os.environ,
                "PYTHONPATH": source,
                "OMP_NUM_THREADS": "1",
                "GLOO_SOCKET_IFNAME": "lo",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "WORLD_SIZE": str(size),
                "RANK": str(rank),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def test_two_processes_are_one_learner(tmp_path):
    command = [sys.executable, str(PROCESS), str(tmp_path)]
    processes = [*start(command, 1), *start(command, 2)]
    for process in processes:
        assert process.wait(600) == 0, process.stderr.read()
        process.stderr.close()
    for preset in ("hildaft", "paper", "turns"):
        compare(tmp_path, preset)


def compare(tmp_path, preset):
    alone = load_file(tmp_path / f"{preset}-1-0.safetensors")
    first = load_file(tmp_path / f"{preset}-2-0.safetensors")
    second = load_file(tmp_path / f"{preset}-2-1.safetensors")
    assert alone.keys() == first.keys() == second.keys()
    for name, value in first.items():
        # Among themselves to the bit; the first counts transitions and draws no more than the others.
        np.testing.assert_array_equal(value, second[name], err_msg=name)
        if value.dtype.kind != "f":
            np.testing.assert_array_equal(value, alone[name], err_msg=name)
        else:
            # Sums in another order; Adam makes of a gradient near zero a step of either sign.
            np.testing.assert_allclose(value, alone[name], rtol=2e-3, atol=2e-4, err_msg=name)


def test_a_process_that_is_left_alone_says_so(tmp_path):
    script, met = tmp_path / "left.py", tmp_path / "met"
    script.write_text(
        "import sys, threading\nfrom pathlib import Path\nfrom hildaft.algo.crew import Crew\n"
        "from hildaft.types import HilDaftError\n"
        "with Crew.from_environment() as crew:\n"
        f"    if crew.rank == 0:\n        Path({str(met)!r}).touch()\n        threading.Event().wait(600)\n"
        "    try:\n        crew.hear()\n"
        "    except HilDaftError as error:\n        sys.exit(str(error))\n"
    )
    processes = start([sys.executable, str(script)], 2)
    try:
        wait_until(met.exists, 300)
        os.kill(processes[0].pid, signal.SIGKILL)
        assert processes[1].wait(300) == 1
        said = processes[1].stderr.read()
        assert "learner process 1 of 2: another one is gone" in said
        assert "--resume" in said
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stderr.close()


def test_alone_nothing_is_shared_or_sent():
    crew = Crew()
    value = torch.arange(6.0)
    assert crew.mean(value) is value
    assert crew.average([value])[0] is value
    crew.tell(Order.EPISODE, lambda: pytest.fail("nobody listens"))
    assert crew.draw(torch.zeros, (2, 3)).shape == (2, 3)


def test_a_crew_that_does_not_meet_is_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(HilDaftError, match="do not find one another") as caught:
        Crew.from_environment()
    assert "\n" not in str(caught.value)
