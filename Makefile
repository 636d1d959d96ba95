# Everything a new reader needs: `make demo` and `make test` build the environment first.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# One rank per GPU; without a GPU, two ranks on gloo where there are two cores.
RANKS ?= $$($(BIN)/python -c "import os, torch; print(torch.cuda.device_count() or min(2, os.cpu_count()))")

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@# --no-compile: byte code is made on first import, which halves the installation.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
		-c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)  ## train on double digits, sample unseen pairs, print the table
	@# As in launch/slurm/node.sh: the launcher hands signals on and waits for the save.
	@export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2 PET_SHUTDOWN_TIMEOUT=280; \
		OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/accelerate launch \
		--config_file launch/accelerate/one_machine.yaml --num_processes $(RANKS) \
		-m sno_dist run -c configs/digits.yaml

test: $(READY)  ## every test that needs neither a GPU nor Slurm
	@$(BIN)/pytest -q -m "not gpu and not slurm" -n 2 --dist loadfile

lint: $(READY)  ## ruff, pyright and the import contracts
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright
	@$(BIN)/lint-imports

bench: $(READY)  ## run the benchmarks one after the other; results go to benchmarks/results
	@for name in reader step kill demo; do \
		OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.$$name \
			--out benchmarks/results/$$name.json || exit 1; \
	done
	@# on all cores, as what it is compared with; pip install -e '.[bench]' adds KeOps
	$(BIN)/python -m benchmarks.gram --out benchmarks/results/gram.json

clean:  ## remove caches and build outputs; runs, shards and .venv stay
	rm -rf build dist .pytest_cache .ruff_cache .import_linter_cache
	find sno_dist tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
