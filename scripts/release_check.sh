#!/usr/bin/env bash
# Builds wheel and sdist, installs the wheel (built from the sdist) in a clean environment outside the tree, and runs from it.
set -euo pipefail
tree=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git -C "$tree" archive --prefix=tree/ HEAD | tar -x -C "$work"
python3 -m venv "$work/build"
"$work/build/bin/pip" install --quiet "build>=1.2,<2"
(cd "$work/tree" && "$work/build/bin/python" -m build --outdir "$work/dist" .)
ls -l "$work/dist"
python3 -m venv "$work/clean"
"$work/clean/bin/pip" install --quiet -c "$tree/constraints.txt" "$(ls "$work"/dist/*.whl)[learn,sim]"
cd "$work"
export OMP_NUM_THREADS=1 LP_NUM_THREADS=0
"$work/clean/bin/python" - "$tree" <<'PYTHON'
import importlib.metadata, pathlib, sys
import hildaft
place = pathlib.Path(hildaft.__file__).resolve()
assert not place.is_relative_to(pathlib.Path(sys.argv[1]).resolve()), place
assert (place.parent / "py.typed").is_file()
print("hildaft", importlib.metadata.version("hildaft"), "from", place.parent)
PYTHON
"$work/clean/bin/hildaft" doctor
"$work/clean/bin/hildaft" demo --preset smoke --out "$work/run"
test -s "$work/run/report/index.html"
echo "release check passed"
