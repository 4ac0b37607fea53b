# Everything runs in .venv, which is made if it is missing or if its requirements have changed.
# A python3.11 that is a shim without an installed version is not used.
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: study test test-slow lint docs clean

# Tests start some two hundred processes. Without bytecode, each would compile the package again, for most of a second.
unexport PYTHONDONTWRITEBYTECODE

# The quickstart: a search on the simulated world, a table, and the runs in mlruns/.
study: $(STAMP)
	$(BIN)/python -m metarec.study

# Tests on real ratings need METAREC_DATA, the name of their folder. Each of two processes runs whole files with one
# thread: with two threads each, the processes wait for each other, and took many times as long.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

# Tests of more than about ten seconds: servers, clusters, full disks, a browser.
test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages of docs/ and the API as a site: open build/site/index.html.
docs: $(STAMP)
	$(BIN)/python -m mkdocs build --strict

$(STAMP): requirements.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip==25.3"
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
