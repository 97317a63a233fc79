# Targets that run Python first create .venv and install packages: minutes the first time, and again
# only after a change of pyproject.toml or constraints.txt.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet -c constraints.txt

# Fast tests have a process for each core, up to four; of all tests many wait for a kernel or a
# browser, so there is one process more. tests/conftest.py gives each of them one thread. They start
# hundreds of processes, which need not compile the same modules again.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest \
	--dist loadscope --no-loadscope-reorder --ignore tests/benchmarks

INSTALLED     := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The networks of `digits` are small: one thread is as fast as many on an idle machine, several
# times faster beside a browser, and gives the same numbers on any number of cores.
demo lab notebooks: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help venv demo lab notebooks site test test-fast test-all test-browser benchmarks lint format clean system-packages

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

venv: $(INSTALLED_DEV) ## create .venv with all packages and test tools

demo: $(INSTALLED) ## search, draw and train a fusion network; leaves runs/demo
	$(BIN)/bmnas run notebooks/00_quickstart.ipynb --out runs/demo

lab: $(INSTALLED) ## open the notebooks in JupyterLab, on this machine only
	@$(BIN)/jupyter trust notebooks/*.ipynb >/dev/null  # otherwise JupyterLab hides their pictures
	$(BIN)/jupyter lab --ip=127.0.0.1 --ServerApp.root_dir='$(CURDIR)' \
		--LabApp.default_url=/lab/tree/notebooks/00_quickstart.ipynb \
		$(if $(filter 0,$(shell id -u)),--allow-root)

test: $(INSTALLED_DEV) system-packages ## run the tests, notebooks and browser included
	$(PYTEST) -n auto -m "not nightly"

test-fast: $(INSTALLED_DEV) ## run the tests without notebooks, browser and slow ones
	$(PYTEST) -n logical --maxprocesses 4 -m "not notebook and not browser and not slow"

test-all: $(INSTALLED_DEV) system-packages ## run all tests, those of every night included
	$(PYTEST) -n auto

test-browser: $(INSTALLED_DEV) system-packages ## run all tests in a browser: all sizes, Notebook 7, Voilà
	$(PYTEST) -n auto -m browser

benchmarks: $(INSTALLED_DEV) system-packages ## print how long things take; no test fails on time
	$(BIN)/python -m pytest -sq tests/benchmarks

notebooks: $(INSTALLED_DEV) ## run all notebooks in place and keep their outputs
	BMNAS_UNATTENDED=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False \
		--ExecutePreprocessor.store_widget_state=False notebooks/*.ipynb

site: $(INSTALLED_DEV) ## build the course as a static site, without a network: build/site/index.html
	$(BIN)/sphinx-build -q -W --keep-going -c docs -d build/site-cache . build/site
	@echo build/site/index.html

lint: $(INSTALLED_DEV) ## check code and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED_DEV) ## fix what `make lint` can fix by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv, builds and caches, but not runs/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing packages into $(VENV) (minutes the first time) ..."
	$(PIP) -e '.[tasks,cluster]'
	@touch $@

$(INSTALLED_DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing packages and test tools into $(VENV) (minutes the first time) ..."
	$(PIP) -e '.[tasks,cluster,site,dev]'
	@touch $@ $(INSTALLED)

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "No '$(PYTHON)' here. Install Python 3.11 or newer, or name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) --version); 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Only tests use these: graphviz to check the `dot` layout, Chromium to drive JupyterLab.
system-packages:
	@missing=""; \
	command -v dot >/dev/null || missing="$$missing graphviz"; \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
		command -v google-chrome >/dev/null || missing="$$missing chromium fonts-liberation"; \
	if [ -z "$$missing" ]; then \
		:; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing system packages:$$missing ..."; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null || \
			echo "Could not install$$missing; tests that need them will be skipped"; \
	else \
		echo "Tests that need these system packages will be skipped:$$missing"; \
		echo "(install them with your package manager, on Debian or Ubuntu with apt-get install)"; \
	fi
