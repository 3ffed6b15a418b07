# Two commands set everything up: `make demo` shows it, `make test` proves it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Many tests wait for servers and links, so more at a time than there are processors. What goes
# together, and what comes first, is said in tests/conftest.py.
TEST_WORKERS ?= 5
# A test starts some programs of ours: that each compiles all modules anew is a third of the time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint bench clean

demo: $(VENV)/.runtime
	@$(BIN)/python -m awayfs demo

test: $(VENV)/.development
	@sh scripts/install-debian-packages tests
	@$(BIN)/python -c 'import gssapi' 2>/dev/null || ! command -v krb5-config >/dev/null || \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[kerberos]' || \
	    echo "Kerberos is not tested: its Python module cannot be built here"
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(VENV)/.development
	$(BIN)/ruff format --check src tests bench
	$(BIN)/ruff check src tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.development
	@sh scripts/install-debian-packages bench
	$(BIN)/python -m bench $(BENCH_ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || sh scripts/install-debian-packages venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(VENV)/bin/python
	@sh scripts/install-debian-packages demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.development: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
