"""Runs a study's command lines as processes of their own, several at a time, until all is done or time is up.

Whatever is finished is never run again; what was stopped or killed goes on where it stood. A process keeps a lock on
its run for as long as it lives, so a study that is started twice does not run anything twice.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import yaml

from hildaft.study.grid import Member
from hildaft.types import HilDaftError

STOP_S: Final = 180.0
"""Time a run is given to finish its episode and write a checkpoint."""
ELSEWHERE: Final = "another process is at it"
"""Why a run is left alone that a second call of the study has begun."""
_POLL_S: Final = 0.2
_STOPPED: Final = (0, 130, -signal.SIGTERM, -signal.SIGINT)


@dataclass(frozen=True, kw_only=True)
class Step:
    """The next process of a member."""

    words: tuple[str, ...]
    result: Path | None
    """File that takes the process' standard output, once it has ended well."""
    label: str


@dataclass(kw_only=True)
class Running:
    """A process under way."""

    member: Member
    step: Step
    process: "subprocess.Popen[bytes]"
    log: Path
    started: float = field(default_factory=time.monotonic)


def run_folder(root: Path, study: str, member: Member) -> Path:
    """Where a member's run lies."""
    return member.given or root / (member.group or study) / member.key


def is_trained(folder: Path) -> bool:
    """Whether a run has made its last evaluation."""
    return any((folder / "evaluations").glob("*-final.json"))


def is_done(folder: Path, member: Member) -> bool:
    """Whether nothing of a member is left to do."""
    return is_trained(folder) and all(m.file(folder).exists() for m in member.measurements)


def next_step(folder: Path, member: Member, donors: Sequence[Path]) -> Step | None:
    """What is to be run next for a member; None where all is done."""
    if not is_trained(folder):
        if member.given is not None:
            msg = f"run {folder}: it is not finished; go on with `hildaft train --out {folder} --resume`"
            raise HilDaftError(msg)
        return Step(words=_training_words(folder, member, donors), result=None, label="train")
    for measurement in member.measurements:
        file = measurement.file(folder)
        if not file.exists():
            return Step(words=measurement.words(folder), result=file, label=measurement.name)
    return None


def _training_words(folder: Path, member: Member, donors: Sequence[Path]) -> tuple[str, ...]:
    command = "train" if not member.robots else "fleet"
    extra = ("--robots", *member.robots) if member.robots else ()
    if (folder / "config.yaml").exists():
        return (command, "--out", str(folder), "--resume", *extra)
    if folder.exists():
        # Killed before it had a config: nothing was recorded that could be lost.
        shutil.rmtree(folder)
    words = (command, *member.words, f"--seed={member.seed}", "--out", str(folder), *extra)
    donor = next((d for d in donors if _same_demonstrations(d, member)), None)
    return words if donor is None else (*words, "--demonstrations", str(donor))


def _same_demonstrations(donor: Path, member: Member) -> bool:
    """Whether a run of this study has the demonstrations that the member would record: they hang on these alone."""
    try:
        config = yaml.safe_load((donor / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return False
    wanted = next(w.partition("=")[2] for w in member.words if "training.demonstrations=" in w)
    changed = [w for w in member.words if w.startswith(("--operator", "--robot", "--backbone"))]
    return (
        config["seed"] == member.seed
        and config["training"]["demonstrations"] == int(wanted)
        and not changed
        and is_trained(donor)
    )


@final
class Runner:
    """Keeps `jobs` processes busy with the members, in their order."""

    def __init__(
        self,
        study: str,
        members: Sequence[Member],
        root: Path,
        *,
        jobs: int,
        say: Callable[[str], None],
        on_done: Callable[[], None],
        program: Sequence[str] = (sys.executable, "-m", "hildaft.cli"),
    ) -> None:
        """`on_done` is called whenever a member is complete; `program` precedes the words of every command."""
        self._study, self._members, self._root = study, list(members), root
        self._jobs, self._say, self._on_done = jobs, say, on_done
        self._program = tuple(program)
        self._running: list[Running] = []
        self.failures: dict[str, str] = {}
        """By run folder, why it is not run on in this call."""

    def run(self, deadline: float, stopped: Callable[[], bool]) -> bool:
        """Runs until all members are done; False where time (`deadline`, monotonic) or `stopped` came first."""
        try:
            while True:
                self._collect()
                if stopped() or time.monotonic() >= deadline:
                    return self._all_done()
                self._start()
                if not self._running:
                    return self._all_done()
                time.sleep(_POLL_S)
        finally:
            self._stop_all()

    def _all_done(self) -> bool:
        return all(is_done(self._folder(m), m) for m in self._members)

    def _folder(self, member: Member) -> Path:
        return run_folder(self._root, self._study, member)

    def _start(self) -> None:
        busy = {self._folder(r.member) for r in self._running}
        for member in self._members:
            if len(self._running) >= self._jobs:
                return
            folder = self._folder(member)
            if folder in busy or str(folder) in self.failures:
                continue
            lock = self._lock(folder)
            if lock is None:
                self.failures[str(folder)] = ELSEWHERE
                continue
            try:
                step = next_step(folder, member, self._donors())
                if step is not None:
                    self._running.append(self._launch(member, folder, step, lock))
                    busy.add(folder)
            except HilDaftError as error:
                self.failures[str(folder)] = str(error)
                self._say(f"{member.key}: {error}")
            finally:
                # The child has its own hold on it.
                os.close(lock)

    def _donors(self) -> list[Path]:
        folders = {self._folder(m).parent for m in self._members}
        return sorted(run for folder in folders if folder.is_dir() for run in folder.glob("*-s*"))

    def _lock(self, folder: Path) -> int | None:
        path = self._root / ".locks" / f"{folder.parent.name}-{folder.name}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            msg = f"study folder {self._root}: {error.strerror or error}; name another with --root"
            raise HilDaftError(msg) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        return handle

    def _launch(self, member: Member, folder: Path, step: Step, lock: int) -> Running:
        log = folder.parent / "logs" / f"{folder.name}-{step.label}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            target = None
            if step.result is not None:
                step.result.parent.mkdir(parents=True, exist_ok=True)
                target = _part(step.result).open("wb")
            try:
                process = subprocess.Popen(
                    [*self._program, *step.words],
                    stdin=subprocess.DEVNULL,
                    stdout=target or errors,
                    stderr=errors,
                    pass_fds=(lock,),
                    start_new_session=True,
                )
            finally:
                if target is not None:
                    target.close()
        self._say(f"{member.key}: {step.label}")
        return Running(member=member, step=step, process=process, log=log)

    def _collect(self) -> None:
        for running in list(self._running):
            code = running.process.poll()
            if code is not None:
                self._running.remove(running)
                self._settle(running, code)

    def _settle(self, running: Running, code: int) -> None:
        folder, step = self._folder(running.member), running.step
        minutes = (time.monotonic() - running.started) / 60
        if step.result is not None and code == 0:
            _part(step.result).rename(step.result)
        finished = code == 0 and (step.result is not None or is_trained(folder))
        if not finished:
            reason = _last_line(running.log)
            if code not in _STOPPED or code == 0:
                self.failures[str(folder)] = f"{step.label} ended with code {code}: {reason}"
                self._say(f"{running.member.key}: {self.failures[str(folder)]}")
            return
        self._say(f"{running.member.key}: {step.label} finished after {minutes:.1f} min")
        if is_done(folder, running.member):
            self._on_done()

    def _stop_all(self) -> None:
        for running in self._running:
            running.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + STOP_S
        for running in self._running:
            while running.process.poll() is None and time.monotonic() < end:
                time.sleep(_POLL_S)
            if running.process.poll() is None:
                running.process.kill()
                running.process.wait()
        self._collect()


def _part(result: Path) -> Path:
    return result.with_name(f".writing-{result.name}")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"
