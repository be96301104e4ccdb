# Everything on a fresh machine: `make demo` fits the shipped real sweep, `make test` runs the suite.
# Both make their own virtual environment; they need a Python of 3.12 or newer.

VENV := .venv
PYTHON := $(shell for p in python3.12 python3 python3.13 python3.14 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done)
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
WORKERS ?= 2

.PHONY: demo test test-training lint docs report clean python

demo: $(VENV)/.analysis
	$(VENV)/bin/python -m cbsbayes.fit -o outputs/demo

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal

# the committed reports on the shipped sweeps, and the README's numbers
report: $(VENV)/.analysis
	rm -rf reports/verl_tiny reports/tiny_grpo reports/verl_lr
	$(VENV)/bin/python -m cbsbayes.fit -o reports/verl_tiny
	$(VENV)/bin/python -m cbsbayes.fit data/tiny_grpo/sweep.nc -o reports/tiny_grpo
	$(VENV)/bin/python -m cbsbayes.fit data/verl_lr/sweep.nc -o reports/verl_lr
	$(VENV)/bin/python benchmarks/readme_numbers.py reports/verl_tiny --write README.md

lint: $(VENV)/.test
	$(PIP) --group lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# the site in outputs/site; a broken link or an unknown name fails
docs: | $(VENV)/bin/python
	$(PIP) --group docs
	$(VENV)/bin/mkdocs build --strict --quiet

python:
	@test -n "$(PYTHON)" || { echo "cbsbayes needs Python 3.12 or newer and found none: install it (for example 'apt-get install python3.12-venv', 'pyenv install 3.12' or 'uv python install 3.12') and run make again" >&2; exit 1; }

$(VENV)/bin/python: | python
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'  # --group

$(VENV)/.analysis: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	touch $@

# verl's own loggers are read from its wheel by the tests; its dependencies (torch, ray) are not needed
$(VENV)/.test: $(VENV)/.analysis
	$(PIP) -e '.[wandb,tensorboard]' --group test
	$(PIP) --no-deps verl==0.9.1
	touch $@

# what needs torch and verl (some 5 GB): the CPU twin end to end and the exactness of the gradient probe
test-training: $(VENV)/.test
	$(PIP) -e '.[wandb,tensorboard,training]' --group test
	$(VENV)/bin/python -m pytest tests/training tests/probe

clean:
	rm -rf $(VENV) outputs .pytest_cache .ruff_cache .mypy_cache
