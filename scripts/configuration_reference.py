"""Writes docs/configuration.md: every config's fields, defaults and docstrings, read from the source."""

import ast
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "hildaft"
TARGET = Path(__file__).parents[1] / "docs" / "configuration.md"
CONFIGS = {
    "config.py": ("RunConfig",),
    "algo/training.py": ("TrainingConfig",),
    "algo/config.py": (),
    "baselines/dsrl.py": ("DsrlConfig",),
    "eval/local_bench.py": ("EvaluationConfig",),
    "teleop/person.py": ("OperatorConfig",),
    "robots/gym_config.py": (),
    "robots/safety.py": ("SafetyLimits",),
    "robots/workspace.py": ("Workspace",),
    "robots/cameras.py": ("CameraConfig",),
    "robots/serl_http.py": ("SerlConfig",),
    "runtime/dataset_import.py": ("DatasetMapping",),
}
"""Module and its classes; every dataclass whose fields have docstrings where none is named."""


def describe(node: ast.ClassDef) -> list[str]:
    """A table of the fields that have a docstring."""
    rows: list[str] = []
    for item, following in zip(node.body, [*node.body[1:], None], strict=True):
        told = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if isinstance(item, ast.AnnAssign) and told:
            text = " ".join(str(following.value.value).split()).replace("|", "\\|")
            default = "" if item.value is None else ast.unparse(item.value).replace("|", "\\|")
            default = default.partition("default_factory=")[2].rstrip(")") or default
            kind = ast.unparse(item.annotation).replace("|", "\\|")
            rows.append(f"| `{ast.unparse(item.target)}` | `{kind}` | `{default}` | {text} |")
    if not rows:
        return []
    lead = (ast.get_docstring(node) or "").splitlines()[0]
    table = ["| field | type | default | meaning |", "|---|---|---|---|", *rows]
    return [f"## {node.name}", "", lead, "", *[row.replace("| `` |", "| |") for row in table], ""]


def compose() -> str:
    """The whole page."""
    lines = ["# Configuration", "", "Made by `make docs` from the source; do not edit.", ""]
    for module, names in CONFIGS.items():
        tree = ast.parse((SOURCE / module).read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and (not names or node.name in names):
                lines += describe(node)
    return "\n".join(lines)


if __name__ == "__main__":
    page = compose()
    if "--check" in sys.argv and TARGET.read_text(encoding="utf-8") != page:
        sys.exit("docs/configuration.md is out of date: run make docs")
    TARGET.write_text(page, encoding="utf-8")
