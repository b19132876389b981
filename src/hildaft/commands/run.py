"""Training and evaluation on the bolt bench: `demo`, `train`, `eval`, `report`, `pretrain`, `bench-sim`."""

import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hildaft.commands.parse import environment_file, parse_words, split_preset
from hildaft.types import HilDaftError


def train(words: Sequence[str]) -> int:
    """`hildaft train [PRESET] --out RUN [--resume] [overrides]`."""
    from hildaft.config import PRESETS, RunConfig, with_environment
    from hildaft.seating import SeatOptions

    preset, rest = split_preset(words)
    file = environment_file(rest)
    start = PRESETS[preset] if file is None else with_environment(PRESETS[preset], file)

    @dataclass(frozen=True)
    class TrainArguments:
        """Fine-tune the dual actor on the bolt bench, with a simulated operator or a person in front of it."""

        config: Annotated[RunConfig, tyro.conf.arg(name="")]
        out: Path = Path("runs") / time.strftime("train-%Y%m%d-%H%M%S")
        """Run folder; must not exist, unless --resume goes on with it."""
        resume: bool = False
        """Go on with the run in --out, with the config it was started with."""
        console: bool = False
        """Open the operator's seat in the browser; the run then goes by the clock. A person as operator opens it
        too."""
        seated: Annotated[SeatOptions, tyro.conf.arg(name="")] = field(default_factory=SeatOptions)
        env: Path | None = None
        """YAML file of a Gymnasium environment or a real arm to train on in the bolt bench's place."""
        demonstrations: Path | None = None
        """Run, or folder of episodes, whose demonstrations to start from in place of recording some."""
        corrections: Path | None = None
        """Run, or folder of `hildaft record --policy`, whose corrected episodes the online stage takes first, before
        the robot moves; they count as its transitions. Needs --demonstrations, which may be the same folder."""

    given = parse_words(TrainArguments, f"train {preset}", rest, TrainArguments(start))
    if given.corrections is not None and given.demonstrations is None:
        msg = f"corrections {given.corrections}: they come after demonstrations; name those with --demonstrations"
        raise HilDaftError(msg)
    return _run(
        given.config,
        given.out,
        resume=given.resume,
        seating=given.seated if given.console or given.seated.has_person else None,
        demonstrations=given.demonstrations,
        corrections=given.corrections,
    )


def demo(words: Sequence[str]) -> int:
    """`hildaft demo [--preset smoke] [--seed N] [--out RUN]`: `train demo`, then the report."""
    from hildaft.config import PRESETS, RunConfig
    from hildaft.seating import SeatOptions

    @dataclass(frozen=True)
    class DemoArguments:
        """Demonstrations, warm-up, online fine-tuning, evaluation, report; in about a minute with --preset smoke."""

        config: Annotated[RunConfig, tyro.conf.arg(name="")]
        out: Path = Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
        """Run folder; must not exist."""
        console: bool = False
        """Open the operator's seat in the browser; the run then goes by the clock. A person as operator opens it
        too."""
        seated: Annotated[SeatOptions, tyro.conf.arg(name="")] = field(default_factory=SeatOptions)

    preset, rest = split_preset(words, "demo")
    given = parse_words(DemoArguments, "demo", rest, DemoArguments(PRESETS[preset]))
    seating = given.seated if given.console or given.seated.has_person else None
    return _run(given.config, given.out, resume=False, seating=seating)


def _run(
    config: object,
    out: Path,
    *,
    resume: bool,
    seating: object,
    demonstrations: Path | None = None,
    corrections: Path | None = None,
) -> int:
    from hildaft.build import open_run
    from hildaft.config import RunConfig
    from hildaft.eval.report import write_report
    from hildaft.seating import SeatOptions

    assert isinstance(config, RunConfig)
    assert seating is None or isinstance(seating, SeatOptions)
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        del frame
        stop.set()
        # Asked once, the run ends after its episode; asked twice, at once, and the robot is still stopped.
        signal.signal(number, signal.default_int_handler)

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    with open_run(
        config,
        out,
        resume=resume,
        stop=stop,
        seating=seating,
        demonstrations=demonstrations,
        corrections=corrections,
    ) as session:
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
        """Evaluate a run's newest weights on fresh seeds, in simulation; who judges is as in the run."""

        run: tyro.conf.Positional[Path]
        """Run folder."""
        episodes: int = 100
        """Episodes per task."""
        talk: Literal["none", "right", "random", "opposite"] = "none"
        """What the operator says when the policy errs; nobody tweaks in an evaluation."""
        talk_always: bool = False
        """The operator talks all the way, not only when the policy errs: the experiment on what words do."""
        robot: Literal["A", "B"] | None = None
        """Bench variant; the run's own where not given. Of a run on the bolt bench alone."""
        seed: int = 1_000
        """Decides the scenes; the same seed gives every policy the same scenes."""
        json: bool = False
        """Print the result as JSON, per-episode outcomes included."""
        tasks: tuple[str, ...] = field(default=())
        """Tasks to evaluate; all of the run's where not given."""

    from hildaft.jobs import evaluate_run

    given = parse_words(EvalArguments, "eval", words)
    text = evaluate_run(
        given.run,
        episodes=given.episodes,
        talk=given.talk,
        talk_always=given.talk_always,
        robot=given.robot,
        seed=given.seed,
        tasks=given.tasks,
        as_json=given.json,
    )
    print(text)
    return 0


def chain(words: Sequence[str]) -> int:
    """`hildaft chain RUN [--bolts N] [--chains N] [--talk MODE] [--json]`."""

    @dataclass(frozen=True)
    class ChainArguments:
        """Long horizon: bolts set upright, picked and assembled one after the other, with a run's newest weights."""

        run: tyro.conf.Positional[Path]
        """Run folder."""
        bolts: int = 4
        """Bolts per chain, 1 to 4; a chain ends at its first failure, so it tells of fewer bolts too."""
        chains: int = 30
        """Chains."""
        talk: Literal["none", "right", "random", "opposite"] = "none"
        """What the operator says when the policy errs; nobody tweaks."""
        seed: int = 2_000
        """Decides the scenes."""
        json: bool = False
        """Print the result as JSON, every chain in it."""

    from hildaft.jobs import evaluate_chains

    given = parse_words(ChainArguments, "chain", words)
    text = evaluate_chains(
        given.run,
        bolts=given.bolts,
        chains=given.chains,
        talk=given.talk,
        seed=given.seed,
        as_json=given.json,
    )
    print(text)
    return 0


def draw_commands(words: Sequence[str]) -> int:
    """`hildaft draw-commands RUN [--out PNG]`."""

    @dataclass(frozen=True)
    class DrawCommandsArguments:
        """Draw what the refinement actor does: the action under each single-axis command, on the camera images."""

        run: tyro.conf.Positional[Path]
        """Run folder."""
        out: Path | None = None
        """PNG; RUN/report/commands.png where not given."""
        seed: int = 4_000
        """Decides the scenes."""

    from hildaft.jobs import draw_commands as draw

    given = parse_words(DrawCommandsArguments, "draw-commands", words)
    print(draw(given.run, given.out or given.run / "report" / "commands.png", given.seed))
    return 0


def report(words: Sequence[str]) -> int:
    """`hildaft report RUN...` or `hildaft report --results FOLDER`."""

    @dataclass(frozen=True)
    class ReportArguments:
        """Write report/index.html into the first run folder, or one page of every study into a results folder."""

        runs: tyro.conf.Positional[tuple[Path, ...]]
        """Run folders; several are compared on one page."""
        results: Path | None = None
        """Results folder of `hildaft study`, such as docs/results: a page of its tables and figures, as index.html."""
        pictures: tuple[Path, ...] = ()
        """With --results: pictures made by `hildaft draw-commands`, to stand at the end."""

    from hildaft.eval.report import write_report

    given = parse_words(ReportArguments, "report", words)
    if given.results is not None:
        from hildaft.study.overview import write_overview

        print(f"report: {write_overview(given.results, given.pictures)}")
        return 0
    if not given.runs:
        msg = "report: no run folder given; name one or more, e.g. `hildaft report runs/demo`"
        raise HilDaftError(msg)
    print(f"report: {write_report(list(given.runs))}")
    return 0


def check_env(words: Sequence[str]) -> int:
    """`hildaft check-env FILE [--frames PNG]`."""

    @dataclass(frozen=True)
    class CheckEnvArguments:
        """Try a Gymnasium environment out against its config and say what fits and what does not."""

        file: tyro.conf.Positional[Path]
        """YAML file of the environment; docs/gymnasium.md says how to write one."""
        frames: Path | None = None
        """Write what the policy will see at some episode starts to this PNG file."""

    from hildaft.config_files import read_environment
    from hildaft.robots.gym_config import GymConfig
    from hildaft.runtime.environment_report import report_environment

    given = parse_words(CheckEnvArguments, "check-env", words)
    config = read_environment(given.file)
    if not isinstance(config, GymConfig):
        msg = f"check-env {given.file}: it is of an arm; look at it with `hildaft check-robot {given.file}`"
        raise HilDaftError(msg)
    report_environment(config, given.frames)
    return 0


def pretrain(words: Sequence[str]) -> int:
    """`hildaft pretrain [overrides]`."""
    from hildaft.pretraining.pretrain import PretrainConfig
    from hildaft.pretraining.pretrain import pretrain as run_pretraining

    print(run_pretraining(parse_words(PretrainConfig, "pretrain", words)))
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

    from hildaft.jobs import render_bench

    given = parse_words(BenchSimArguments, "bench-sim", words)
    for path in render_bench(given.out, given.robot, given.seed):
        print(path)
    return 0
