# The commands of this repository. `make demo` and `make test` need nothing but Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST = $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile
RUN_STAMP := $(VENV)/.installed-run
UI_STAMP := $(VENV)/.installed-ui
DEV_STAMP := $(VENV)/.installed-dev
DOCS_STAMP := $(VENV)/.installed-docs

.PHONY: demo ui setup test test-slow lint wheel bench docs train-video image screenshots clean

demo: $(RUN_STAMP)            ## run on a real clip; results in out/demo/
	$(BIN)/python run_pipeline.py demo

ui: $(UI_STAMP)               ## the page in a browser: click, track, correct, export
	$(BIN)/python run_pipeline.py ui

setup: $(DEV_STAMP)           ## the full development environment, all extras

test: lint                    ## lint, types and the quick tests
	$(PYTEST) -m "not slow"

test-slow: $(DEV_STAMP)       ## the slow tests: training, quantization, long runs
	$(PYTEST) -m slow

lint: $(DEV_STAMP) .lint/maskstream
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd .lint && ../$(BIN)/lint-imports --no-logo ../pyproject.toml

wheel: $(DEV_STAMP)           ## sdist and wheel, checked, and the wheel tried beside PyPI's `trackers`
	rm -rf dist build/wheel-trial
	$(BIN)/python -m build --quiet --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/python -m venv build/wheel-trial/venv
	build/wheel-trial/venv/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt "trackers==2.6.1" "$$(echo dist/*.whl)[demo,ui]"
	cd build/wheel-trial && venv/bin/python ../../tests/support/installed.py

bench: $(DEV_STAMP)           ## speed and memory, as ratios against baselines of the same run
	$(BIN)/python run_pipeline.py bench models
	$(BIN)/python run_pipeline.py bench stream
	$(BIN)/python run_pipeline.py bench store
	$(BIN)/python run_pipeline.py bench live --burn

train-video: $(DEV_STAMP)      ## go on training the memory (configs/train/video/memory.yaml), ten minutes at most
	$(BIN)/python run_pipeline.py train-video configs/train/video/memory.yaml --minutes 10

screenshots: $(DEV_STAMP)     ## screenshots of the page, step by step, into docs/images
	$(BIN)/python -m docs.page_screenshots docs/images

docs: $(DOCS_STAMP) .lint/maskstream  ## the documentation, into out/docs; a broken link or reference fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

image:                        ## the page's container, built and tried; without docker its steps are
	sh docker/check.sh

clean:                        ## remove the environment, caches and results
	rm -rf $(VENV) out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .lint

.lint/maskstream:             # the installed layout as links, for tools that read folders
	mkdir -p $@
	ln -sfn ../../maskstream/__init__.py ../../maskstream/py.typed ../../pipeline ../../trackers ../../ui $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[demo]'
	touch $@

$(UI_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[demo,ui]'
	touch $@

$(DOCS_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[docs]'
	touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[demo,ui,train,eval,dev]'
	$(PIP) --no-deps trackeval  # its opencv-python would overwrite ours, the headless one
	touch $@ $(RUN_STAMP) $(UI_STAMP)
