"""Whether the quick form of a study orders the methods as the full one does, where the full one tells them apart.

python benchmarks/quick_order.py docs/results/table1-9000.json docs/results/table1-quick.json
"""

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import tyro

from hildaft.eval.statistics import Interval
from hildaft.study.outcomes import by_method, points
from hildaft.study.paired import compare

INTERVALS: Final = ("over runs", "bootstrap")
"""Each seed as one observation (95 % t interval), and over seeds and episodes: the two that the study's page gives."""


@dataclass(frozen=True)
class Arguments:
    """Results of the same study in both forms, as `hildaft study` wrote them."""

    full: tyro.conf.Positional[Path]
    """JSON of the full form."""
    quick: tyro.conf.Positional[Path]
    """JSON of the quick form."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two methods, the better one of the full form first."""

    better: str
    worse: str
    full: Mapping[str, Interval]
    """Their difference in the full form, by the name of its interval."""
    quick: Interval
    """Their difference in the quick form (bootstrap over episodes)."""

    def apart(self, interval: str) -> bool:
        """Whether the full form tells them apart: the gap exceeds the interval."""
        return interval in self.full and self.full[interval].low > 0

    @property
    def kept(self) -> bool:
        """Whether the quick form has them in the same order; a tie is none."""
        return self.quick.estimate > 0


def pairs(full: dict[str, Any], quick: dict[str, Any]) -> list[Pair]:
    """Every two methods that both documents hold and that met the same scenes in each."""
    names = [name for name in by_method(full) if name in by_method(quick)]
    found: list[Pair] = []
    for names_of_pair in combinations(names, 2):
        first, second = names_of_pair
        whole = compare(full, first, second)
        if whole is not None and whole.success.estimate < 0:
            first, second = second, first
            whole = compare(full, first, second)
        short = compare(quick, first, second)
        if whole is None or short is None:
            continue
        gaps = {"bootstrap": whole.success}
        if whole.success_runs is not None:
            gaps["over runs"] = whole.success_runs.difference
        found.append(Pair(better=first, worse=second, full=gaps, quick=short.success))
    return found


def page(found: list[Pair], command: str) -> str:
    """The table, and how many of the pairs that are told apart are in the same order."""
    lines = [
        "# The order of the quick form",
        "",
        f"`{command}`",
        "",
        "Every two methods of both forms, the better one of the full form first: differences of success in points. "
        "The full form tells two methods apart where its gap exceeds the interval: 95 % t interval with each seed as "
        "one observation (over runs), and, narrower, the bootstrap over seeds and episodes. The quick form has one "
        "seed; its interval is of episodes alone.",
        "",
        "| better | worse | full, over runs | full, bootstrap | quick | same order |",
        "|---|---|---|---|---|---|",
    ]
    for pair in found:
        cells = [
            (f"**{points(pair.full[name])}**" if pair.apart(name) else points(pair.full[name]))
            if name in pair.full
            else "-"
            for name in INTERVALS
        ]
        lines.append(
            f"| {pair.better} | {pair.worse} | {' | '.join(cells)} | {points(pair.quick)} |"
            f" {'yes' if pair.kept else 'no'} |"
        )
    lines += ["", "Bold: told apart.", ""]
    for name in INTERVALS:
        apart = [pair for pair in found if pair.apart(name)]
        kept = sum(pair.kept for pair in apart)
        lines.append(
            f"- {name}: the quick form has {kept} of {len(apart)} such pairs in the same order."
        )
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    given = tyro.cli(Arguments)
    full, quick = (
        json.loads(path.read_text(encoding="utf-8")) for path in (given.full, given.quick)
    )
    print(page(pairs(full, quick), shlex.join(["python", *sys.argv])))


if __name__ == "__main__":
    main()
