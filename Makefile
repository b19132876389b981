# The two commands of the README, `make demo` and `make test`, set everything up by themselves.
PY := .venv/bin/python
READY := .venv/.ready

.PHONY: setup demo test check bench faults load release-check docs

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

# Set LEROBOT_PYTHON to an interpreter that can import lerobot to compare with its SAC too.
bench: $(READY)
	$(PY) benchmarks/run.py $(if $(LEROBOT_PYTHON),--lerobot-python $(LEROBOT_PYTHON))

release-check:
	bash scripts/release_check.sh

docs: $(READY)
	$(PY) -m pip install --quiet -c constraints.txt -e ".[docs]"
	$(PY) scripts/configuration_reference.py
	.venv/bin/zensical build --strict

faults: $(READY)
	$(PY) benchmarks/faults.py --out docs/results/faults.json --page

load: $(READY)
	$(PY) benchmarks/load.py --out docs/results/load.json
