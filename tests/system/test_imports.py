"""What runs beside a robot stays light: no torch there, and the package itself costs next to nothing."""

import subprocess
import sys


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_worker_s_side_loads_neither_torch_nor_the_simulator() -> None:
    loaded = run_python(
        "import hildaft.runtime.interaction, hildaft.teleop.simulated_operator, hildaft.robots\n"
        "import sys\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    ).split()
    assert "numpy" in loaded
    assert not {"torch", "mujoco", "matplotlib"} & set(loaded)


def test_importing_the_package_takes_less_than_half_a_second_of_cpu() -> None:
    seconds = run_python(
        "import time\n"
        "before = time.process_time()\n"
        "import hildaft\n"
        "print(time.process_time() - before)"
    )
    assert float(seconds) < 0.5


def test_a_run_needs_no_web_server_and_no_lerobot() -> None:
    loaded = run_python(
        "import sys\n"
        "for name in ('uvicorn', 'starlette', 'lerobot', 'draccus', 'pyarrow', 'av'): sys.modules[name] = None\n"
        "import hildaft.build, hildaft.build_remote, hildaft.jobs, hildaft.commands.run, hildaft.arms\n"
        "print('loaded')"
    )
    assert loaded == "loaded\n"
