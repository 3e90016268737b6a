# Everything happens in .venv; a second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin
STAMPS := .venv/stamps

.PHONY: demo test test-runs test-others soak test-readers lint bench docs notebooks clean-venv

# Python compiles what is imported and keeps that: pip would compile everything, which is half of its time, and where
# this is set every process of the tests would compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=

define install
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[$(1)]'
endef

demo: $(STAMPS)/demo
	$(BIN)/nextlong demo

test: $(STAMPS)/dev
	@echo "tests of runs, all others, and linters run side by side; each is shown when it has ended"
	+$(MAKE) --no-print-directory --jobs=3 --output-sync=target lint test-runs test-others

# Halves of about the same length. Where ten tests fail, the others would not say more, and may wait for as long.
test-runs: $(STAMPS)/dev
	$(BIN)/python -m pytest --maxfail=10 tests/etl tests/security --ignore=tests/etl/shards

test-others: $(STAMPS)/dev
	$(BIN)/python -m pytest --maxfail=10 tests --ignore=tests/etl/explore --ignore=tests/etl/report --ignore=tests/security \
	  --ignore-glob='tests/etl/test_*.py'

soak: $(STAMPS)/soak
	$(BIN)/python -m pytest -rs --timeout=900 -m "" tests/soak
	$(BIN)/python -m pytest -rs --timeout=900 -m long

test-readers: $(STAMPS)/readers
	$(BIN)/python -m pytest -rs --timeout=900 -m "" tests/readers

lint: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(STAMPS)/dev
	$(BIN)/python -m pytest tests/notebooks

docs: $(STAMPS)/dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/site
	@echo build/site/index.html

bench: $(STAMPS)/bench
	$(BIN)/python -m benchmarks

$(STAMPS)/demo: setup.cfg constraints.txt | .venv
	@echo "setting up .venv, once: PyTorch and the other packages are downloaded (README.md says how much)"
	$(call install,demo)
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: setup.cfg constraints.txt | .venv
	@echo "setting up .venv, once: PyTorch and the other packages are downloaded (README.md says how much)"
	$(call install,dev)
	mkdir -p $(STAMPS) && touch $@ $(STAMPS)/demo

$(STAMPS)/bench: $(STAMPS)/dev
	$(call install,bench)
	touch $@

$(STAMPS)/soak: $(STAMPS)/dev
	$(call install,cluster)
	touch $@

READERS := tests/readers/environments.py tests/readers/torchvision_stub.py $(wildcard tests/readers/requirements/*.txt)

$(STAMPS)/readers: $(STAMPS)/dev $(READERS)
	@echo "setting up the readers of other projects in .venv/readers, once: two of them bring a PyTorch of their own"
	$(BIN)/python -m tests.readers.environments datasets megatron numpy1 numpy2 streaming
	touch $@

.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

clean-venv:
	rm -rf .venv
