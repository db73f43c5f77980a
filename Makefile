# Two commands matter: `make run` and `make test`. Both may be run as often as you like; what is done is not done again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
# Shared or few cores: without this, threads that wait burn the core that works (measured: 6x, docs/decisions/0004).
export OMP_WAIT_POLICY ?= PASSIVE
export GRADIO_ANALYTICS_ENABLED ?= False

HOST ?= 127.0.0.1
PORT ?= 7860
DATABASE_URL ?= sqlite:///var/asuka.db
export DATABASE_URL

.DEFAULT_GOAL := help
.PHONY: help run test format lint types contracts train-mini table soak bench notebooks lock clean

help:  ## what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.app  ## install what the app needs, migrate the database, serve on http://$(HOST):$(PORT)
	@$(BIN)/python app.py --host $(HOST) --port $(PORT)

test: $(VENV)/.dev chromium  ## format, lint, types, architecture and every test (browser tests included)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/pytest -n 3 --dist loadfile

format: $(VENV)/.dev  ## put the code into its one format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: $(VENV)/.dev  ## ruff alone
	@$(BIN)/ruff check .

types: $(VENV)/.dev  ## pyright alone
	@$(BIN)/pyright

contracts: $(VENV)/.dev  ## the architecture's import contracts alone
	@$(BIN)/lint-imports

soak: $(VENV)/.dev  ## the long versions of tests that `make test` runs short (kill -9 a thousand times, ...)
	@ASUKA_SOAK=1 $(BIN)/pytest -m "not browser" -q

bench: $(VENV)/.dev  ## every benchmark, one after another, with its figures
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

PHOTOS ?= ../shared/data/train
PRESET ?= cpu
train-mini: $(VENV)/.app  ## train the small family from PHOTOS=folder (PRESET=cpu: a night; gpu: see docs/training.md)
	@$(BIN)/python -m training mini --preset $(PRESET) --data $(PHOTOS) --run runs/$(PRESET)

EVAL ?= ../shared/data/eval
TABLE_METHODS ?= asuka-mini,sd-mini,sd-mini-prompt,sd-mini-repaint,mae-mini,context-encoder-mini,lama-mini,contextual-attention-mini,dfnet-mini,telea,navier-stokes,fsr,shift-map,biharmonic,nearest-neighbour
table: $(VENV)/.app  ## our own table: every ready method on EVAL=folder (images/, masks/) into var/table/table.md
	@keys=$$($(BIN)/python -m asuka_infer methods --json | $(BIN)/python -c "import json, sys; \
		asked = sys.argv[1].split(','); ready = {row['key'] for row in json.load(sys.stdin) if row['ready']}; \
		print('left out, not ready here:', *[key for key in asked if key not in ready], file=sys.stderr); \
		print(','.join(key for key in asked if key in ready))" $(TABLE_METHODS)) && \
	$(BIN)/python -m asuka_infer batch --methods $$keys --images $(EVAL)/images --holes $(EVAL)/masks \
		--out var/table/results && \
	$(BIN)/python -m asuka_infer evaluate --results var/table/results --images $(EVAL)/images --holes $(EVAL)/masks \
		--out var/table $(addprefix --domains ,$(wildcard $(EVAL)/images.csv)) \
		$(addprefix --weights ,$(wildcard $(EVAL)/../weights))

notebooks: $(VENV)/.app  ## open the analysis notebooks in the browser (installs JupyterLab into the environment)
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet jupyterlab -c requirements.lock
	@$(BIN)/jupyter lab analysis/notebooks

lock: $(VENV)/.uv  ## resolve requirements-dev.txt again and write requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --custom-compile-command "make lock" \
		requirements-dev.txt -o requirements.lock

clean:  ## remove the virtual environment and everything the app wrote
	rm -rf $(VENV) var .pytest_cache .ruff_cache .hypothesis

.PHONY: chromium
chromium:
	@.ci/chromium

$(VENV)/.uv: Makefile
	@.ci/venv $(PYTHON) $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/.app: $(VENV)/.uv requirements.txt requirements-study.txt requirements.lock
	@echo "Installing what the app needs (about 6 GB with torch's CUDA build; once)"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode -r requirements.txt -c requirements.lock
	@touch $@

$(VENV)/.dev: $(VENV)/.app requirements-dev.txt requirements.lock
	@echo "Installing what the tests need"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode -r requirements-dev.txt -c requirements.lock
	@touch $@
