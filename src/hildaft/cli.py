"""The `hildaft` command: reads the words, builds, runs. A user's mistake ends in one line and exit code 2."""

import importlib
import os
import select
import sys
from collections.abc import Callable, Sequence
from typing import Final

from hildaft.types import HilDaftError, StoppedError

USAGE: Final = """\
usage: hildaft COMMAND [...]

  demo               record, warm up, fine-tune and evaluate on the bolt bench; ends with a report;
                     --preset smoke: all of it in about a minute, too short to learn much
  train [PRESET]     the same with every setting open; presets: hildaft, paper, demo, smoke,
                     and what ours is compared with: single-actor, bc, hg-dagger, hil-conrft, dsrl
  fleet [PRESET]     a learner and several robots of the bench on this machine, by the clock
  learner [PRESET]   train on what workers deliver, from other machines too
  worker             run one robot for a learner
  status             show a learner and its workers
  certs NAME         make certificates for the link between machines
  sweep PRESET...    variants times seeds, here or on a Ray cluster, and one table
  chain RUN          long horizon: one to four bolts with a run's newest weights, silent or spoken to
  study NAME         run an experiment of the paper within a time budget: table1, fig5, table2, long-horizon,
                     multi-robot, ablations, talk-control
  eval RUN           evaluate a run's newest weights; --talk none|right|random|opposite
  draw-commands RUN  what the refinement actor does: the action under each command, on the camera images
  console [RUN]      drive the arm from the browser, alone or beside a run's policy
  record             demonstrations, or corrections of a run's policy, each one reviewed
  report RUN...      write report/index.html; --results docs/results: one page of every study
  check-env FILE     try a Gymnasium environment out against its config; train on it with train --env FILE
  doctor             look at this machine; --teleop: devices in the hand; --backbone NAME: load and time it
  check-robot FILE   read a real arm, send nothing; --dry-run prints a step
  calibrate FILE     measure an arm's workspace box, led by hand or with --jog
  export RUN         write a run's episodes as a LeRobotDataset v3.0
  import DATASET     add a LeRobotDataset's, or converted, episodes to an episode folder
  export-policy RUN  write a run's policy for LeRobot's own evaluation and rollout
  inspect DATASET    counts, lengths, success, action ranges, frames and warnings of a dataset
  convert-pickle F   HIL-SERL and ConRFT demonstrations to safetensors, isolated
  pretrain           make the embedded backbone's weights anew
  train-success RUN  train a classifier that sees success, for robots without a simulator
  talk [TEXT]        show how typed or spoken words are understood; nothing moves
  encode RUN         rebuild a run's h and image features for another backbone
  bench-sim          render a contact sheet and a clip of each task

`hildaft COMMAND --help` explains a command."""

# glibc gives each large tensor fresh pages and takes them back; keeping them, and asking for large ones, makes the
# learner faster (docs/performance.md). Neither this nor the thread counts can be set from inside a process that has
# started, so `main` starts itself once more.
LAUNCH_ENVIRONMENT: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "OMP_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",
}

EXTRAS: Final = {
    **dict.fromkeys(("torch", "tensorboardX", "matplotlib", "scipy", "markdown_it"), "learn"),
    **dict.fromkeys(("msgpack", "cryptography"), "learn"),
    **dict.fromkeys(("mujoco", "gymnasium"), "sim"),
    **dict.fromkeys(("starlette", "uvicorn", "websockets"), "console"),
}
"""Extra that brings a module which the base does not: beside a robot neither networks nor a simulator are needed."""

READER_GONE: Final = 141
"""Exit code where whoever read our output ended first, as a shell gives it for SIGPIPE."""

STOPPED: Final = 130
"""Exit code where a person has stopped what ran, as every command has it."""

COMMANDS: Final = {
    "demo": "run:demo",
    "train": "run:train",
    "eval": "run:evaluate",
    "chain": "run:chain",
    "draw-commands": "run:draw_commands",
    "study": "study:study",
    "fleet": "study:fleet",
    "console": "console:console",
    "record": "console:record",
    "report": "run:report",
    "check-env": "run:check_env",
    "doctor": "doctor:doctor",
    "check-robot": "robot:check_robot",
    "calibrate": "robot:calibrate",
    "export": "datasets:export",
    "export-policy": "datasets:export_policy",
    "import": "datasets:import_",
    "inspect": "datasets:inspect",
    "convert-pickle": "datasets:convert_pickle",
    "pretrain": "run:pretrain",
    "bench-sim": "run:bench_sim",
    "talk": "talk:talk",
    "train-success": "train_success:train_success",
    "encode": "encode:encode",
    "learner": "link:learner",
    "worker": "link:worker",
    "status": "link:status",
    "certs": "link:certs",
    "sweep": "sweep:sweep",
}
"""Command name to module and function under `hildaft.commands`."""


def main() -> None:
    """Entry point of the `hildaft` command."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0)
    try:
        command = _command(arguments[0])
        if "HILDAFT_LAUNCHED" not in os.environ:
            environment = {**LAUNCH_ENVIRONMENT, **os.environ, "HILDAFT_LAUNCHED": "1"}
            os.execve(
                sys.executable, [sys.executable, "-m", "hildaft.cli", *arguments], environment
            )
        code = command(arguments[1:])
        sys.stdout.flush()
        raise SystemExit(code)
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        raise SystemExit(READER_GONE) from None
    except KeyboardInterrupt:
        # A command that goes on from where it was stopped has its own way, and says so.
        print(f"hildaft: {arguments[0]} was stopped", file=sys.stderr)
        # Behind a pipe the same Ctrl-C has ended the reader too.
        _reader_is_gone()
        raise SystemExit(STOPPED) from None
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        told = f"{arguments[0]}: needs {module}, which is not installed here"
        print(f"hildaft: {told}; pip install 'hildaft[{EXTRAS[module]}]'", file=sys.stderr)
        raise SystemExit(2) from error
    except HilDaftError as error:
        print(f"hildaft: {error}", file=sys.stderr)
        raise SystemExit(STOPPED if isinstance(error, StoppedError) else 2) from error


def _reader_is_gone() -> bool:
    """Whether it is our own output that nobody reads any more, as behind `| head`; then nothing further is said."""
    output = select.poll()
    output.register(sys.stdout.fileno(), select.POLLOUT)
    gone = any(event & select.POLLERR for _, event in output.poll(0))
    if gone:
        # Python would flush once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def _command(name: str) -> Callable[[Sequence[str]], int]:
    if name not in COMMANDS:
        from hildaft.config_files import require_name

        require_name("command", name, tuple(COMMANDS))
    # Found by name, so that a command loads nothing but what it needs.
    module, function = COMMANDS[name].split(":")
    return getattr(importlib.import_module(f"hildaft.commands.{module}"), function)


if __name__ == "__main__":
    main()
