"""Modules and functions stay small enough to be read in one go."""

import ast
from pathlib import Path

import pytest

import hildaft

SOURCE = Path(hildaft.__file__).parent
MODULE_LINES = 400
FUNCTION_LINES = 60
MODULES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_sizes(module: str) -> None:
    text = (SOURCE / module).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MODULE_LINES
    functions = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    sizes = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions}
    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES} == {}
