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
    "models/consistency.py": ("ConsistencyConfig",),
    "models/critic.py": ("CriticConfig",),
    "models/refinement.py": ("RefinementConfig",),
    "models/selection.py": ("EncoderConfig",),
    "baselines/dsrl.py": ("DsrlConfig",),
    "eval/local_bench.py": ("EvaluationConfig",),
    "teleop/person.py": ("OperatorConfig",),
    "robots/gym_config.py": (),
    "robots/judged.py": ("JudgeConfig",),
    "seating.py": ("SeatOptions",),
    "console/serving.py": ("ServingConfig",),
    "teleop/browser.py": ("SeatConfig",),
    "teleop/device.py": ("DeviceConfig",),
    "types.py": ("ActionScale",),
    "robots/safety.py": ("SafetyLimits",),
    "robots/workspace.py": ("Workspace",),
    "robots/cameras.py": ("CameraConfig",),
    "robots/real_arm.py": ("ArmTask",),
    "robots/serl_http.py": ("SerlConfig",),
    "robots/bolt_arm.py": ("BoltArmConfig",),
    "lerobot_bridge/config.py": (),
    "runtime/dataset_import.py": ("DatasetMapping",),
}
"""Module and its classes; every dataclass whose fields have docstrings where none is named."""
CONSTANTS = ("teleop/talk.py",)
"""Modules with no config of their own, whose constants are defaults."""


def read_constants() -> dict[str, str]:
    """What the upper-case names stand for that are some field's default."""
    found: dict[str, str] = {}
    for module in (*CONFIGS, *CONSTANTS):
        for node in ast.parse((SOURCE / module).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                value = node.value
                if isinstance(value, (ast.Constant, ast.Tuple, ast.Call)):
                    found[node.target.id] = ast.unparse(value)
    return found


def describe_type(node: ast.expr, documented: set[str]) -> str:
    """A field's type, without what only the command line needs; a link where it has a section here."""
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Annotated":
        assert isinstance(node.slice, ast.Tuple)
        node = node.slice.elts[0]
    # A bar would end the cell, and not every renderer takes a backslash before it away inside code.
    kind = ast.unparse(node).replace("|", "or")
    name = kind.removesuffix(" or None")
    return f"[`{kind}`](#{name.lower()})" if name in documented else f"`{kind}`"


def describe_default(node: ast.expr | None, constants: dict[str, str]) -> str:
    """A field's default; what a factory makes where it has one."""
    if node is None:
        return ""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "field":
        (node,) = (word.value for word in node.keywords if word.arg == "default_factory")
        node = node.body if isinstance(node, ast.Lambda) else node
        if isinstance(node, ast.Subscript):
            return f"{ast.unparse(node.value)}()"
    return constants.get(ast.unparse(node), ast.unparse(node)).replace("|", "or")


def describe(node: ast.ClassDef, documented: set[str], constants: dict[str, str]) -> list[str]:
    """A table of the fields that have a docstring."""
    rows: list[str] = []
    for item, following in zip(node.body, [*node.body[1:], None], strict=True):
        told = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if isinstance(item, ast.AnnAssign) and told:
            text = " ".join(str(following.value.value).split()).replace("|", "\\|")
            kind = describe_type(item.annotation, documented)
            default = describe_default(item.value, constants)
            rows.append(f"| `{ast.unparse(item.target)}` | {kind} | `{default}` | {text} |")
    if not rows:
        return []
    lead = (ast.get_docstring(node) or "").splitlines()[0]
    table = ["| field | type | default | meaning |", "|---|---|---|---|", *rows]
    return [f"## {node.name}", "", lead, "", *[row.replace("| `` |", "| |") for row in table], ""]


def compose() -> str:
    """The whole page."""
    lines = ["# Configuration", "", "Made by `make docs` from the source; do not edit.", ""]
    nodes = [
        node
        for module, names in CONFIGS.items()
        for node in ast.parse((SOURCE / module).read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and (not names or node.name in names)
    ]
    documented, constants = {node.name for node in nodes}, read_constants()
    for node in nodes:
        lines += describe(node, documented, constants)
    return "\n".join(lines)


if __name__ == "__main__":
    page = compose()
    if "--check" in sys.argv and TARGET.read_text(encoding="utf-8") != page:
        sys.exit("docs/configuration.md is out of date: run make docs")
    TARGET.write_text(page, encoding="utf-8")
