"""Writes `NAME.json`, `NAME.md` and `NAME.png` of a study from the run folders, whatever of it exists."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from hildaft.study import chains, drawing, fleets, pages
from hildaft.study.collect import Entry, collect, key_of
from hildaft.study.grid import Member
from hildaft.study.runner import run_folder
from hildaft.types import HilDaftError


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What is written: a study's runs, and how it was called."""

    name: str
    """Of the files."""
    study: str
    command: tuple[str, ...]
    members: list[Member]
    """Of the whole study, not only what is run in this call."""
    root: Path
    keep: bool = False
    """Whether runs of the results written before count where their folders are not here."""


EARLIER: Final = "earlier"
"""Folder below the results, of those that others took the place of."""
WRITERS: Final[dict[str, tuple[Callable[[Entry], list[str]], Callable[[Entry], Figure]]]] = {
    "table1": (pages.table1, drawing.draw_bars),
    "fig5": (pages.fig5, drawing.draw_curves),
    "table2": (pages.table2, drawing.draw_bars),
    "ablations": (pages.ablations, drawing.draw_bars),
    "long-horizon": (chains.page, chains.draw),
    "multi-robot": (fleets.page, fleets.draw),
    "talk-control": (pages.talk_control, drawing.draw_talk),
}
"""By study: its Markdown and its picture."""


def compose(result: StudyResult, failures: dict[str, str], earlier: Sequence[Entry] = ()) -> Entry:
    """The study's document; `earlier` runs stand in for those that are not finished here."""
    folders = [run_folder(result.root, result.study, member) for member in result.members]
    runs, missing = collect(result.members, folders, failures, earlier)
    for run in runs:
        # What a fleet measures on both benches is no member's measurement: it is part of the run.
        if curves := fleets.read_curves(result.root / result.study / run["folder"]):
            run["fleet"] = curves
    return {
        "study": result.study,
        "name": result.name,
        "command": shlex.join(result.command),
        "commit": _one([run["commit"] for run in runs]),
        "measured_at": _one(
            [m["commit"] for r in runs for m in r["measured"].values() if "commit" in m]
        ),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": _one([run["machine"] for run in runs])
        or f"{os.cpu_count()} cores {platform.machine()}",
        "hours": round(sum(run["wall_minutes"] for run in runs) / 60, 2),
        "seeds": sorted({run["seed"] for run in runs}),
        "runs": runs,
        "not_run": missing,
    }


def write_results(result: StudyResult, out: Path, failures: dict[str, str]) -> list[Path]:
    """Writes the files and returns their paths.

    Raises:
        HilDaftError: a run folder or the results to keep are damaged, or the folder cannot be written.
    """
    earlier = read_runs(out / f"{result.name}.json")
    document = compose(result, failures, earlier if result.keep else [])
    write_page, draw = WRITERS[result.study]
    body = write_page(document) if document["runs"] else ["No run is finished yet.", ""]
    lines = [*_head(document), *body, *_foot(document)]
    paths = [out / f"{result.name}.json", out / f"{result.name}.md"]
    picture = drawing.render(draw, document) if document["runs"] else None
    try:
        out.mkdir(parents=True, exist_ok=True)
        if {key_of(run) for run in earlier} - {key_of(run) for run in document["runs"]}:
            _set_aside(out, result.name)
        _write(paths[0], (json.dumps(document, indent=1) + "\n").encode())
        _write(paths[1], ("\n".join(lines) + "\n").encode())
        if picture is not None:
            paths.append(out / f"{result.name}.png")
            _write(paths[2], picture)
    except OSError as error:
        msg = f"results folder {out}: {error.strerror or error}; name another with --out"
        raise HilDaftError(msg) from error
    return paths


def _set_aside(out: Path, name: str) -> None:
    """Moves the results written before out of the way: they hold runs whose folders are not here."""
    number = next(n for n in count(1) if not (out / EARLIER / f"{name}-{n}").exists())
    folder = out / EARLIER / f"{name}-{number}"
    folder.mkdir(parents=True)
    for ending in ("json", "md", "png"):
        path = out / f"{name}.{ending}"
        if path.exists():
            path.rename(folder / path.name)
    print(f"hildaft: {folder} has the {name} of before, whose runs are not here", file=sys.stderr)


def read_runs(path: Path) -> list[Entry]:
    """Runs of the results written before; none where there are no such results."""
    if not path.exists():
        return []
    try:
        return [dict(run) for run in json.loads(path.read_text(encoding="utf-8"))["runs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"results {path}: cannot be read ({type(error).__name__}: {error}); mend or remove the file"
        raise HilDaftError(msg) from error


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f".writing-{path.name}")
    part.write_bytes(content)
    part.rename(path)


def _one(values: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _head(document: Entry) -> list[str]:
    picture = [f"![{document['name']}]({document['name']}.png)", ""] if document["runs"] else []
    seeds = ", ".join(str(seed) for seed in document["seeds"]) or "none yet"
    measured = f", measured at {document['measured_at']}" if document["measured_at"] else ""
    return [
        f"# {document['name']}",
        "",
        f"`{document['command']}`, seeds {seeds}, commit {document['commit'] or 'none'}{measured}, "
        f"{document['date']}, {document['machine']}, {document['hours']} hours of training (wall clock, as many runs "
        "at a time as `--jobs` says; evaluations after it are not counted, and studies share runs). Every outcome of "
        f"every evaluation episode is in `{document['name']}.json`.",
        "",
        *picture,
        *_settings_differ(document),
    ]


def _settings_differ(document: Entry) -> list[str]:
    groups: dict[str, list[str]] = {}
    for run in document["runs"]:
        groups.setdefault(run.get("settings", "not recorded"), []).append(run["folder"])
    if len(groups) < 2:
        return []
    listed = "; ".join(f"{settings}: {', '.join(names)}" for settings, names in groups.items())
    return [
        f"**Not of one bench**: robot, tasks, limit or operator of these runs differ ({listed}). They are not paired.",
        "",
    ]


def _foot(document: Entry) -> list[str]:
    lines: list[str] = []
    if absent := pages.not_run(document):
        lines += ["", "## Not run", "", *absent]
    partly = [run for run in document["runs"] if run["not_measured"]]
    if partly:
        lines += ["", "Not measured yet:", ""]
        lines += [f"- {run['folder']}: {', '.join(run['not_measured'])}" for run in partly]
    return lines
