# The two commands of the README, `make demo` and `make test`, set everything up by themselves.
PY := .venv/bin/python
READY := .venv/.ready

.PHONY: setup demo test check bench faults

setup: $(READY)

$(READY): pyproject.toml constraints.txt scripts/setup.sh
	bash scripts/setup.sh

demo: $(READY)
	.venv/bin/hildaft demo

test: $(READY)
	bash scripts/test.sh

check: $(READY)
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/basedpyright
	.venv/bin/lint-imports

bench: $(READY)
	$(PY) benchmarks/sim.py cost --steps 100 --out runs/bench/sim_cost.json
	$(PY) benchmarks/learner.py --rounds 5

faults: $(READY)
	$(PY) benchmarks/faults.py --out docs/results/faults.json --page
