# Every target sets up what it needs in .venv; a second time that is skipped.
# No make? The commands under each target are all there is to it.
PYTHON ?= python3
# A newer release of something breaks a target? `make PIN=1 test` takes versions that are known to work.
VENV ?= $(if $(PIN),.venv-pinned,.venv)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(PIN),--constraint tests/known_good.txt)

.PHONY: help study test test-fast lab student course docs lint reference-digits reference-fashion-mnist reference-cifar-cpu reference-cifar-gpu reference-cifar100-cpu bench bench-long clean

study: $(VENV)/.package  ## the embedded study: table, accuracy_vs_fraction.png, runtime.png
	$(BIN)/advprune study notebooks/profiles/digits.yaml

help:  ## this list
	@awk -F ':.*  ## ' '/^[a-z0-9-]+:.*  ## / { gsub(/[$$][$$]/, "$$"); printf "%-23s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

test: $(VENV)/.tests  ## all tests
	$(BIN)/python -m pytest -n auto --dist worksteal

test-fast: $(VENV)/.tests  ## without the slow ones
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

lab: $(VENV)/.package  ## JupyterLab on this machine only, at its start page; it prints its address with the token
	@$(BIN)/python -c 'import importlib.util as i, sys; sys.exit(None if i.find_spec("jupyterlab") else "make lab needs JupyterLab, which $(VENV) lacks: $(BIN)/python -m pip install --editable .[lab]")'
	$(BIN)/jupyter lab --ip=127.0.0.1 --ServerApp.root_dir=. $$([ "$$(id -u)" != 0 ] || echo --allow-root) notebooks/README.ipynb

student: $(VENV)/.package  ## the course's lessons with open exercises, in lessons/student; nothing is executed
	$(BIN)/python notebooks/course/editions.py lessons --student

course: $(VENV)/.package  ## the course's editions for students and, executed, for instructors, in lessons
	$(BIN)/python notebooks/course/editions.py lessons

docs: $(VENV)/.docs  ## the site, in build/docs/html: results, components, course, and the package's reference
	rm -rf build/docs
	$(BIN)/python -m docs.pages build/docs/source
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --jobs 2 \
	  --conf-dir docs --doctree-dir build/docs/doctrees build/docs/source build/docs/html
	@echo "open build/docs/html/index.html"

lint: $(VENV)/.tests  ## style, formatting and types, notebooks included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# The studies of results/reference again: first what all will take, then one after the other; what is finished stays.
RESULTS ?= results
DIGITS := digits digits_20_seeds digits_autoattack digits_n_fgsm pruners pruners_l2 trainers carried collapse \
          when_pruning_wins when_pruning_wins_l2 convergence_reliability convergence_reliability_l2 \
          collapse_by_fraction collapse_by_fraction_large collapse_by_fraction_l2 gradient_matching speedrun
FASHION_MNIST := freshness
CIFAR_CPU := cifar10_cpu_lr_pgd cifar10_cpu_crop cifar10_cpu cifar10_cpu_bfloat16 both_worlds_cifar10_cpu \
             noise_cifar10_cpu gradient_matching_cifar10_cpu gradient_matching_cifar10_30_cpu budget_cifar10_cpu \
             speedrun_cifar10_cpu collapse_cifar10_cpu collapse_cifar10_cpu_large gradient_matching_cifar10_mart_cpu
CIFAR100_CPU := gradient_matching_cifar100_cpu cifar100_cpu
CIFAR_GPU := cifar10_resnet18 noise_cifar10_resnet18
each = set -e; for study in $(1); do $(BIN)/advprune study $$study --out $(RESULTS) $(2); done

reference-digits: $(VENV)/.package  ## hours of two cores
	@$(call each,$(DIGITS),--dry-run)
	@$(call each,$(DIGITS),)

reference-fashion-mnist: $(VENV)/.package  ## hours of two cores; the data are downloaded, or lie in $$ADVPRUNE_DATA
	@$(call each,$(FASHION_MNIST),--dry-run)
	@$(call each,$(FASHION_MNIST),)

reference-cifar-cpu: $(VENV)/.package  ## nights of two cores; the data are downloaded, or lie in $$ADVPRUNE_DATA
	@$(call each,$(CIFAR_CPU),--dry-run)
	@$(call each,$(CIFAR_CPU),)

reference-cifar-gpu: $(VENV)/.package  ## a quarter of an hour of a large GPU; data likewise
	@$(call each,$(CIFAR_GPU),--dry-run)
	@$(call each,$(CIFAR_GPU),-p workers=6)

reference-cifar100-cpu: $(VENV)/.package  ## more nights of two cores; data likewise
	@$(call each,$(CIFAR100_CPU),--dry-run)
	@$(call each,$(CIFAR100_CPU),)

# What is measured stays in results/benchmarks, and is not measured again; ONLY="pgd omp-memory" takes some, AGAIN=... anew.
BENCH = OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench $(if $(ONLY),--only $(ONLY)) $(if $(AGAIN),--again $(AGAIN))

bench: $(VENV)/.bench  ## beside other libraries, on a machine that does nothing else: half an hour of one core
	$(BENCH)

bench-long: $(VENV)/.bench  ## the rows that take hours
	$(BENCH) --long

clean:  ## the environment and caches; never results or answers
	rm -rf $(VENV) .venv-pinned build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find advprune_core tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "advprune needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.package: pyproject.toml $(if $(PIN),tests/known_good.txt) | $(VENV)/bin/python
	@echo "Setting up $(VENV): PyTorch and JupyterLab are large, this takes some minutes once."
	$(PIP) --editable '.[lab]'
	touch $@

$(VENV)/.tests: tests/oracles.txt $(VENV)/.package
	$(PIP) --editable '.[docs,test]'
	$(PIP) --no-deps --requirement tests/oracles.txt
	touch $@

$(VENV)/.bench: benchmarks/peers.txt $(VENV)/.tests
	$(PIP) --editable '.[bench]'
	$(PIP) --no-deps --requirement benchmarks/peers.txt
	touch $@

$(VENV)/.docs: $(VENV)/.package
	$(PIP) --editable '.[docs]'
	touch $@
