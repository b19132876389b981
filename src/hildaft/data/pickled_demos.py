"""HIL-SERL's and ConRFT's demonstrations, which are pickles: a pickle can run any code, so none is ever loaded here.

`convert_pickle` starts a process of its own that may build numbers, texts, containers and NumPy arrays, nothing else,
and writes what it found as safetensors; only that file is read by HiL-DAFT.
"""

import io
import json
import pickle
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from safetensors.numpy import save_file

from hildaft.types import HilDaftError

FORMAT: Final = "hildaft.transitions"
_ALLOWED: Final = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
    ("collections", "OrderedDict"),
}
"""All that arrays, scalars and dictionaries need."""
_START: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop());"
    " from hildaft.data.pickled_demos import main; raise SystemExit(main())"
)
_TIMEOUT_S: Final = 600
_MEMORY_BYTES: Final = 16 << 30


def convert_pickle(source: Path, target: Path) -> str:
    """Converts a list of transition dictionaries to safetensors in a process of its own; returns a summary.

    Raises:
        HilDaftError: no such file, the pickle asks for anything but arrays and plain values, or its transitions do not
            share one layout. Nothing is written then.
    """
    if not source.is_file():
        msg = f"demonstrations {source}: there is no such file"
        raise HilDaftError(msg)
    if target.exists():
        msg = f"output {target} exists; name another"
        raise HilDaftError(msg)
    package = str(Path(__file__).parents[2])
    # Isolated (-I): no PYTHONPATH, no user site, no module out of the folder this runs in.
    command = [sys.executable, "-I", "-c", _START, str(source), str(target), package]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        msg = f"demonstrations {source}: not converted within {_TIMEOUT_S} s"
        raise HilDaftError(msg) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"the converter ended with {done.returncode}"]
        msg = f"demonstrations {source}: {lines[-1]}"
        raise HilDaftError(msg)
    return done.stdout.strip()


@final
class _PlainUnpickler(pickle.Unpickler):
    """Builds arrays and plain values; every other name in the pickle is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as the base class has it
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        msg = f"it asks for {module}.{name}, which is neither an array nor a plain value; refused, nothing was run"
        raise pickle.UnpicklingError(msg)


def flatten(value: object, name: str = "") -> dict[str, np.ndarray]:
    """Arrays by path of one transition; raises HilDaftError for a value that is no number, array or dictionary."""
    if isinstance(value, dict):
        parts: dict[str, np.ndarray] = {}
        for key, item in value.items():
            parts |= flatten(item, f"{name}/{key}" if name else str(key))
        return parts
    if value is None or isinstance(value, str):
        return {}
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        msg = (
            f"{name or 'a transition'} holds {type(value).__name__}; numbers and arrays are allowed"
        )
        raise HilDaftError(msg)
    return {name: array}


def _convert(source: Path, target: Path) -> None:
    transitions = _PlainUnpickler(io.BytesIO(source.read_bytes())).load()
    if not isinstance(transitions, list) or not transitions:
        msg = f"a list of transitions is expected, found {type(transitions).__name__}"
        raise HilDaftError(msg)
    rows = [flatten(transition) for transition in transitions]
    shared = set.intersection(*(set(row) for row in rows))
    columns: dict[str, np.ndarray] = {}
    for name in sorted(shared):
        shapes = {row[name].shape for row in rows}
        if len(shapes) > 1:
            msg = f"{name} has shapes {sorted(shapes)}; one is allowed"
            raise HilDaftError(msg)
        columns[name] = np.stack([row[name] for row in rows])
    if "actions" not in columns:
        msg = f"no 'actions'; found {', '.join(sorted(shared)) or 'nothing that all transitions share'}"
        raise HilDaftError(msg)
    metadata = {"format": FORMAT, "transitions": str(len(rows)), "source": source.name}
    save_file(columns, target, metadata)
    described = {name: [str(c.dtype), *c.shape[1:]] for name, c in columns.items()}
    print(f"{len(rows)} transitions: {json.dumps(described)}")


def main() -> int:
    """The converter's process; its arguments are source and target."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    try:
        _convert(source, target)
    except (HilDaftError, OSError, pickle.UnpicklingError, MemoryError) as error:
        print(f"{error or type(error).__name__}", file=sys.stderr)
        return 2
    except Exception as error:  # a malformed pickle raises anything
        print(f"it is no pickle of transitions ({type(error).__name__} {error})", file=sys.stderr)
        return 2
    return 0
