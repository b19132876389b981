"""Learner and workers on several machines: `learner`, `worker`, `status`, `certs`."""

import json
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hildaft.commands.parse import environment_file, parse_words, split_preset
from hildaft.commands.signals import stop_on_signals
from hildaft.types import HilDaftError

_ADDRESS = "127.0.0.1:50551"


def learner(words: Sequence[str]) -> int:
    """`hildaft learner [PRESET] --out RUN [--listen HOST:PORT] [--resume] [overrides]`, also under torchrun."""
    from hildaft.config import PRESETS, RunConfig, with_environment

    preset, rest = split_preset(words)
    file = environment_file(rest)
    start = PRESETS[preset] if file is None else with_environment(PRESETS[preset], file)

    @dataclass(frozen=True)
    class LearnerArguments:
        """Train on the episodes that workers deliver; each robot runs `hildaft worker`."""

        config: Annotated[RunConfig, tyro.conf.arg(name="")]
        out: Path = Path("runs") / time.strftime("learner-%Y%m%d-%H%M%S")
        """Run folder; must not exist, unless --resume goes on with it. Its file `token` is what workers need."""
        listen: str = _ADDRESS
        """HOST:PORT to listen on; beyond this machine --certs is needed. Port 0 takes a free one."""
        certs: Path | None = None
        """Folder with ca.crt, learner.crt and learner.key, made by `hildaft certs learner`."""
        resume: bool = False
        """Go on with the run in --out, with the config it was started with."""
        evaluate: bool = True
        """Evaluate on the workers' robots, and nothing else meanwhile; --no-evaluate: later, by `hildaft eval` in
        simulation, by --resume beside real arms."""
        env: Path | None = None
        """YAML file of a real arm in the bolt bench's place: its tasks and action scale; each worker has its own."""

    from hildaft.algo.crew import Crew
    from hildaft.build_remote import follow_learner, open_learner
    from hildaft.runtime.link.credentials import ServerTls, read_tls

    given = parse_words(LearnerArguments, f"learner {preset}", rest, LearnerArguments(start))
    tls = ServerTls(*read_tls(given.certs, "learner")) if given.certs else None
    stop = stop_on_signals()
    with Crew.from_environment() as crew:
        if crew.rank > 0:
            # The signal reaches all processes; the first decides when the others end.
            follow_learner(crew)
            return 0
        with open_learner(
            given.config,
            given.out,
            resume=given.resume,
            listen=given.listen,
            tls=tls,
            stop=stop,
            crew=crew,
            evaluate=given.evaluate,
        ) as (session, server, _):
            print(
                f"learner ready: hildaft worker --learner {given.listen.rpartition(':')[0]}:{server.port} "
                f"--token-file {given.out / 'token'}",
                file=sys.stderr,
                flush=True,
            )
            finished = session.run()
    return _say_how_to_go_on(given.out, finished=finished, evaluated=given.evaluate)


def _say_how_to_go_on(out: Path, *, finished: bool, evaluated: bool) -> int:
    """Ends a learner with the command that comes next; the exit code."""
    if not finished:
        print(f"stopped; go on with: hildaft learner --out {out} --resume", file=sys.stderr)
        return 130
    print(f"finished: {_evaluation_of(out, evaluated=evaluated)}")
    return 0


def _evaluation_of(folder: Path, *, evaluated: bool) -> str:
    """The command that shows how well a learner's finished run does, or finds it out."""
    from hildaft.config import read_config
    from hildaft.jobs import go_on_with_person, why_a_person

    if why_a_person(read_config(folder / "config.yaml")) is None:
        return f"hildaft eval {folder}"
    return f"hildaft report {folder}" if evaluated else go_on_with_person(folder)


def worker(words: Sequence[str]) -> int:
    """`hildaft worker --robot A|B --learner HOST:PORT --token-file FILE [--operator spacemouse]`."""
    from hildaft.robots.judged import JudgeConfig
    from hildaft.seating import SeatOptions

    @dataclass(frozen=True)
    class WorkerArguments:
        """Run one robot for a learner: of the bolt bench with a simulated operator, or with a person beside it."""

        env: Path | None = None
        """YAML file of this worker's own real arm, with a person beside it (--operator)."""
        robot: Literal["A", "B"] = "A"
        """Variant of the bolt bench."""
        learner: str = _ADDRESS
        """HOST:PORT of the learner."""
        name: str = ""
        """Who this is in the learner's status, and whose certificate is shown; HOST-ROBOT by default."""
        token_file: Path | None = None
        """Copy of the learner's RUN/token; without it the variable HILDAFT_TOKEN is read."""
        certs: Path | None = None
        """Folder with ca.crt, NAME.crt and NAME.key, made by `hildaft certs NAME`."""
        spool: Path | None = None
        """Folder for episodes that the learner has not confirmed; runs/spool/NAME by default."""
        spool_gib: float = 8.0
        """Disk the spool may take before the robot holds."""
        tasks: tuple[str, ...] = field(default=())
        """Tasks this robot can do; all of the run's where not given."""
        max_weight_age: float = 300.0
        """Seconds to act on weights that the learner has not confirmed as its newest; then the robot holds."""
        judge: JudgeConfig = field(default_factory=JudgeConfig)
        """Who says that a task is done here; as the learner's config says where nothing is given."""
        console: bool = False
        """Open the operator's seat in the browser, as a person as operator does; the robot goes by the clock."""
        seated: Annotated[SeatOptions, tyro.conf.arg(name="")] = field(default_factory=SeatOptions)

    from hildaft.build_remote import WorkerOptions, run_worker
    from hildaft.config_files import read_arm
    from hildaft.runtime.link.credentials import ClientTls, read_tls, read_token

    given = parse_words(WorkerArguments, "worker", words)
    name = given.name or f"{socket.gethostname().partition('.')[0]}-{given.robot}"
    _require_positive(spool_gib=given.spool_gib, max_weight_age=given.max_weight_age)
    options = WorkerOptions(
        arm=None if given.env is None else read_arm(given.env),
        robot=given.robot,
        learner=given.learner,
        name=name,
        token=read_token(given.token_file),
        tls=ClientTls(*read_tls(given.certs, name)) if given.certs else None,
        spool=given.spool or Path("runs") / "spool" / name,
        spool_bytes=int(given.spool_gib * (1 << 30)),
        tasks=given.tasks,
        max_weight_age_s=given.max_weight_age,
        judge=None if given.judge == JudgeConfig() else given.judge,
        seating=given.seated if given.console or given.seated.has_person else None,
    )
    say = partial(_say_as, name)
    finished = run_worker(options, say=say, stop=stop_on_signals())
    say("finished, everything is delivered" if finished else "stopped; start again to go on")
    return 0 if finished else 130


def _say_as(name: str, line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {name}: {line}", file=sys.stderr, flush=True)


def _require_positive(**options: float) -> None:
    for name, value in options.items():
        if not 0 < value < 1e9:
            msg = f"--{name.replace('_', '-')} {value}: a positive number is allowed"
            raise HilDaftError(msg)


def status(words: Sequence[str]) -> int:
    """`hildaft status [--learner HOST:PORT] [--json]`."""

    @dataclass(frozen=True)
    class StatusArguments:
        """Show how far a learner is, and how each of its workers does."""

        learner: str = _ADDRESS
        """HOST:PORT of the learner."""
        token_file: Path | None = None
        """Copy of the learner's RUN/token; without it the variable HILDAFT_TOKEN is read."""
        certs: Path | None = None
        """Folder with certificates; those of --name are shown."""
        name: str = "status"
        """Whose certificate to show."""
        json: bool = False
        """Print everything as JSON."""

    from google.protobuf.json_format import MessageToDict

    from hildaft.runtime.link import link_pb2 as pb
    from hildaft.runtime.link.client import LearnerAwayError, LearnerClient
    from hildaft.runtime.link.credentials import ClientTls, read_tls, read_token
    from hildaft.runtime.link.status_table import print_status
    from hildaft.runtime.link.wire import SCHEMA_VERSION

    given = parse_words(StatusArguments, "status", words)
    tls = ClientTls(*read_tls(given.certs, given.name)) if given.certs else None
    client = LearnerClient(given.learner, read_token(given.token_file), tls)
    try:
        reply = client.call("Status", pb.StatusRequest(schema_version=SCHEMA_VERSION))
    except LearnerAwayError as error:
        msg = f"learner {given.learner}: no answer ({error}); check that it runs and that address and certificates fit"
        raise HilDaftError(msg) from error
    finally:
        client.close()
    if given.json:
        fields = MessageToDict(
            reply, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        print(json.dumps(fields, indent=1))
    else:
        print_status(reply)
    return 0


def certs(words: Sequence[str]) -> int:
    """`hildaft certs NAME [--hosts HOST...] [--out FOLDER]`."""

    @dataclass(frozen=True)
    class CertsArguments:
        """Make a certificate of a private CA: `learner` with the hosts it is reached by, then one per robot."""

        name: tyro.conf.Positional[str]
        """"learner", or the name a worker will join under."""
        hosts: tuple[str, ...] = field(default=())
        """Names and addresses of the learner, such as 192.168.1.10; for a worker none."""
        out: Path = Path("certs")
        """Folder; the CA is made there the first time. ca.key never leaves this machine."""

    given = parse_words(CertsArguments, "certs", words)
    if given.name == "learner" and not given.hosts:
        msg = "certs learner: no --hosts given; name what workers will call it, such as --hosts 192.168.1.10 lab-pc"
        raise HilDaftError(msg)
    from hildaft.runtime.link.certs import make_certificate

    for path in make_certificate(given.out, given.name, given.hosts):
        print(path)
    if given.name != "learner":
        print(
            f"copy to the robot: {given.out}/ca.crt {given.out}/{given.name}.crt {given.out}/{given.name}.key"
        )
    return 0
