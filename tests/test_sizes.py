"""Modules and functions stay small enough to be read in one go."""

import ast
from pathlib import Path

import pytest

import hildaft

SOURCE = Path(hildaft.__file__).parent
MODULE_LINES = 400
FUNCTION_LINES = 60
EXCEPTIONS = {
    # The three updates share batches, held weights and optimisers; apart, they would pass these to each other.
    "algo/dual_actor.py": 500,
}
MODULES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_sizes(module: str) -> None:
    text = (SOURCE / module).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= EXCEPTIONS.get(module, MODULE_LINES)
    functions = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    sizes = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions}
    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES} == {}


def test_every_exception_is_still_needed() -> None:
    for module in EXCEPTIONS:
        assert len((SOURCE / module).read_text(encoding="utf-8").splitlines()) > MODULE_LINES
