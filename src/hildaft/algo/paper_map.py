"""Writes docs/paper.md: which code owns which equation and line of the paper, and where we differ.

It reads docstrings only. An owner's docstring has a line of its own, "Paper: Eq. 12." or "Paper:
Alg. 1, lines 10-17."; a departure, in any docstring, starts with "Differs from the paper (NAME):".
Run as `python -m hildaft.algo.paper_map docs/paper.md`.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

EQUATIONS: Final = {
    1: "noise of the primary mode",
    2: "noise of the refinement mode",
    3: "embedding of the frozen backbone",
    4: "actor: Q loss",
    5: "actor: behaviour-cloning loss",
    6: "actor: weighted sum",
    7: "refinement actor: mean of the noise",
    8: "refinement actor: behaviour-cloning loss",
    9: "refinement actor: Q loss",
    10: 'refinement actor: regulariser under "[null]"',
    11: "refinement actor: weighted sum",
    12: "talk: displacement over the window",
    13: "talk: words from displacement",
    14: "actor: Q loss, uniform over tasks",
    15: "actor: Q loss, weighted over tasks",
    16: "actor: weights of the tasks",
    17: "embedding from SmolVLA's last layer",
}
ALGORITHM_LINES: Final = 30

_EQUATION = re.compile(r"^Paper: Eq\. (\d+)\.$", re.MULTILINE)
_ALGORITHM = re.compile(r"^Paper: Alg\. 1, lines? ([\d, -]+)\.$", re.MULTILINE)
_DEPARTURE = re.compile(r"Differs from the paper \(([^)]+)\):\s+(.+?)(?:\n\s*\n|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PaperMap:
    """What the docstrings claim; owners are written `package.module:qualified_name`."""

    equations: dict[int, list[str]]
    algorithm: dict[int, list[str]]
    departures: list[tuple[str, str, str]]
    """Name, text and owner, in order of the files."""


def scan_package(root: Path) -> PaperMap:
    """Reads every module below the package folder `root`."""
    equations: dict[int, list[str]] = {number: [] for number in EQUATIONS}
    algorithm: dict[int, list[str]] = {line: [] for line in range(1, ALGORITHM_LINES + 1)}
    departures: list[tuple[str, str, str]] = []
    for path in sorted(root.rglob("*.py")):
        module = ".".join((root.name, *path.relative_to(root).with_suffix("").parts))
        module = module.removesuffix(".__init__")
        for name, text in _docstrings(ast.parse(path.read_text(encoding="utf-8"))):
            owner = f"{module}:{name}" if name else module
            for match in _EQUATION.finditer(text):
                equations.setdefault(int(match[1]), []).append(owner)
            for match in _ALGORITHM.finditer(text):
                for line in _expand(match[1]):
                    algorithm.setdefault(line, []).append(owner)
            departures += [
                (match[1], " ".join(match[2].split()), owner) for match in _DEPARTURE.finditer(text)
            ]
    return PaperMap(equations, algorithm, departures)


def render(paper: PaperMap) -> str:
    """The page as Markdown."""
    lines = [
        "# The paper, in the code",
        "",
        "Written by `python -m hildaft.algo.paper_map docs/paper.md` from the docstrings.",
        "",
        "## Equations",
        "",
        "| equation | what | owner |",
        "| --- | --- | --- |",
    ]
    for number, owners in sorted(paper.equations.items()):
        lines.append(f"| {number} | {EQUATIONS.get(number, '')} | {_cell(owners)} |")
    lines += ["", "## Algorithm 1", "", "| line | owner |", "| --- | --- |"]
    lines += [f"| {line} | {_cell(owners)} |" for line, owners in sorted(paper.algorithm.items())]
    lines += [
        "",
        "## Departures",
        "",
        "Preset `paper` has the paper's value of each, and B = 256. What it does, or why it is not done here.",
        "",
        "| name | what | where |",
        "| --- | --- | --- |",
    ]
    # The switch comes first in the files' order; what it switches is named beside it.
    named = {name: text for name, text, _ in reversed(paper.departures)}
    for name in dict.fromkeys(name for name, _, _ in paper.departures):
        owners = [owner for other, _, owner in paper.departures if other == name]
        lines.append(f"| {name} | {named[name]} | {_cell(owners)} |")
    return "\n".join(lines) + "\n"


def _docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Qualified name and docstring of the module, its classes, functions and fields."""
    yield "", ast.get_docstring(tree) or ""
    pending: list[tuple[str, ast.Module | ast.ClassDef]] = [("", tree)]
    while pending:
        prefix, parent = pending.pop(0)
        for node, following in zip(parent.body, [*parent.body[1:], None], strict=True):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield prefix + node.name, ast.get_docstring(node) or ""
            if isinstance(node, ast.ClassDef):
                pending.append((f"{prefix}{node.name}.", node))
            if isinstance(node, ast.AnnAssign) and isinstance(following, ast.Expr):
                text = following.value
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    yield prefix + ast.unparse(node.target), inspect.cleandoc(text.value)


def _expand(ranges: str) -> Iterator[int]:
    for part in ranges.split(","):
        first, _, last = part.strip().partition("-")
        yield from range(int(first), int(last or first) + 1)


def _cell(owners: Sequence[str]) -> str:
    return ", ".join(f"`{owner}`" for owner in owners) or "not yet"


def main(arguments: Sequence[str]) -> None:
    """Writes the page to the given file."""
    page = render(scan_package(Path(__file__).parents[1]))
    Path(arguments[0]).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
