"""The `hildaft` command: reads the words, builds, runs. A user's mistake ends in one line and exit code 2."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import tyro

from hildaft.types import HilDaftError

USAGE: Final = """\
usage: hildaft COMMAND [...]

  demo               record, warm up, fine-tune and evaluate on the bolt bench; ends with a report
  train [PRESET]     the same with every setting open; presets: hildaft, paper, demo, tiny
  eval RUN           evaluate a run's newest weights; --talk none|right|random|opposite
  report RUN...      write report/index.html
  pretrain           make the embedded backbone's weights anew
  bench-sim          render a contact sheet and a clip of each task

`hildaft COMMAND --help` explains a command."""

# glibc gives each large tensor fresh pages and takes them back; keeping them makes the learner faster. Neither this
# nor the thread counts can be set from inside a process that has started, so `main` starts itself once more.
LAUNCH_ENVIRONMENT: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "OMP_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",
}

Args = TypeVar("Args")


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
        raise SystemExit(command(arguments[1:]))
    except HilDaftError as error:
        print(f"hildaft: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _command(name: str) -> Callable[[Sequence[str]], int]:
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "demo": demo,
        "train": train,
        "eval": evaluate,
        "report": report,
        "pretrain": pretrain,
        "bench-sim": bench_sim,
    }
    if name not in commands:
        from hildaft.config import require_name

        require_name("command", name, tuple(commands))
    return commands[name]


def _parse(kind: type[Args], name: str, words: Sequence[str], default: Args | None = None) -> Args:
    if default is None:
        return tyro.cli(kind, prog=f"hildaft {name}", args=list(words))
    return tyro.cli(kind, prog=f"hildaft {name}", args=list(words), default=default)


def train(words: Sequence[str]) -> int:
    """`hildaft train [PRESET] --out RUN [--resume] [overrides]`."""
    from hildaft.config import PRESETS, RunConfig, require_name

    preset = words[0] if words and not words[0].startswith("-") else "hildaft"
    require_name("preset", preset, tuple(PRESETS))
    rest = words[1:] if words and not words[0].startswith("-") else words

    @dataclass(frozen=True)
    class TrainArguments:
        """Fine-tune the dual actor on the bolt bench with a simulated operator."""

        config: Annotated[RunConfig, tyro.conf.arg(name="")]
        out: Path = Path("runs") / time.strftime("train-%Y%m%d-%H%M%S")
        """Run folder; must not exist, unless --resume goes on with it."""
        resume: bool = False
        """Go on with the run in --out, with the config it was started with."""

    given = _parse(TrainArguments, f"train {preset}", rest, TrainArguments(PRESETS[preset]))
    return _run(given.config, given.out, resume=given.resume)


def demo(words: Sequence[str]) -> int:
    """`hildaft demo [--seed N] [--out RUN]`: `train demo`, then the report."""
    from hildaft.config import PRESETS, RunConfig

    @dataclass(frozen=True)
    class DemoArguments:
        """Twenty demonstrations per task, warm-up, online fine-tuning with tweak and talk, evaluation, report."""

        config: Annotated[RunConfig, tyro.conf.arg(name="")]
        out: Path = Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
        """Run folder; must not exist."""

    given = _parse(DemoArguments, "demo", words, DemoArguments(PRESETS["demo"]))
    return _run(given.config, given.out, resume=False)


def _run(config: object, out: Path, *, resume: bool) -> int:
    from hildaft.build import open_run
    from hildaft.config import RunConfig
    from hildaft.eval.report import write_report

    assert isinstance(config, RunConfig)
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        del frame
        stop.set()
        # Asked once, the run ends after its episode; asked twice, at once, and the robot is still stopped.
        signal.signal(number, signal.default_int_handler)

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    with open_run(config, out, resume=resume, stop=stop) as session:
        finished = session.run()
    if not finished:
        print(f"stopped; go on with: hildaft train --out {out} --resume", file=sys.stderr)
        return 130
    page = write_report([out])
    print(f"report: {page}")
    return 0


def evaluate(words: Sequence[str]) -> int:
    """`hildaft eval RUN [--episodes N] [--talk MODE] [--json]`."""

    @dataclass(frozen=True)
    class EvalArguments:
        """Evaluate a run's newest weights on fresh seeds."""

        run: tyro.conf.Positional[Path]
        """Run folder."""
        episodes: int = 100
        """Episodes per task."""
        talk: Literal["none", "right", "random", "opposite"] = "none"
        """What the operator says when the policy errs; nobody tweaks in an evaluation."""
        robot: Literal["A", "B"] | None = None
        """Bench variant; the run's own where not given."""
        seed: int = 1_000
        """Decides the scenes; the same seed gives every policy the same scenes."""
        json: bool = False
        """Print the result as JSON, per-episode outcomes included."""
        tasks: tuple[str, ...] = field(default=())
        """Tasks to evaluate; all of the run's where not given."""

    from hildaft.build import evaluate_run

    given = _parse(EvalArguments, "eval", words)
    text = evaluate_run(
        given.run,
        episodes=given.episodes,
        talk=given.talk,
        robot=given.robot,
        seed=given.seed,
        tasks=given.tasks,
        as_json=given.json,
    )
    print(text)
    return 0


def report(words: Sequence[str]) -> int:
    """`hildaft report RUN...`."""

    @dataclass(frozen=True)
    class ReportArguments:
        """Write report/index.html into the first run folder."""

        runs: tyro.conf.Positional[tuple[Path, ...]]
        """Run folders; several are compared on one page."""

    from hildaft.eval.report import write_report

    given = _parse(ReportArguments, "report", words)
    if not given.runs:
        msg = "report: no run folder given; name one or more, e.g. `hildaft report runs/demo`"
        raise HilDaftError(msg)
    print(f"report: {write_report(list(given.runs))}")
    return 0


def pretrain(words: Sequence[str]) -> int:
    """`hildaft pretrain [overrides]`."""
    from hildaft.pretraining.pretrain import PretrainConfig
    from hildaft.pretraining.pretrain import pretrain as run_pretraining

    print(run_pretraining(_parse(PretrainConfig, "pretrain", words)))
    return 0


def bench_sim(words: Sequence[str]) -> int:
    """`hildaft bench-sim [--out FOLDER]`."""

    @dataclass(frozen=True)
    class BenchSimArguments:
        """Render a contact sheet and a short clip of each task, solved by the simulated operator."""

        out: Path = Path("runs") / "bench-sim"
        """Folder for the pictures."""
        robot: Literal["A", "B"] = "A"
        """Bench variant."""
        seed: int = 0
        """Decides the scenes."""

    from hildaft.build import render_bench

    given = _parse(BenchSimArguments, "bench-sim", words)
    for path in render_bench(given.out, given.robot, given.seed):
        print(path)
    return 0


if __name__ == "__main__":
    main()
