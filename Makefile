# make demo: set up and run the main job; make test: set up and pass the tests; make coverage: the
# same tests with every line counted, which takes a third longer; make docs: the documentation's site,
# in .venv/site; make leaderboard: the zoo's own, in docs/, from an hour of attacks (go on by the same
# command).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test coverage lint docs leaderboard bench clean

$(VENV)/.demo: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[demo,dev]'
	touch $@

$(VENV)/.peers: benchmarks/peers/install.sh $(VENV)/.demo
	bash benchmarks/peers/install.sh $(BIN)/python
	touch $@

demo: $(VENV)/.demo
	$(BIN)/rbl attack --model mnist-cnn-at --attack fgsm --attack pgd --n 500
	$(BIN)/rbl attack --model mnist-cnn --attack fgsm --attack pgd --n 500

test coverage: export OMP_NUM_THREADS = 1
test coverage: PYTEST := $(BIN)/python -m pytest -q -n 2 --dist worksteal
test: $(VENV)/.dev
	$(PYTEST)

coverage: $(VENV)/.dev
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-fail-under=90

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/sphinx-build -W --keep-going -q -b html docs/site $(VENV)/site

leaderboard: RUNS ?= runs
leaderboard: $(VENV)/.demo
	$(BIN)/rbl bench linf --models 'digits-*,mnist-*' --n 300 --out $(RUNS)
	$(BIN)/rbl bench corruptions --models 'digits-*,mnist-*' --n 200 --out $(RUNS)
	$(BIN)/rbl bench blackbox --models 'digits-*,mnist-*' --n 100 --out $(RUNS)
	printf '# The zoo under attack\n\nMade by `make leaderboard`; with curves and examples in leaderboard.html.\n\n' \
		> docs/LEADERBOARD.md
	$(BIN)/rbl leaderboard $(RUNS) --format markdown >> docs/LEADERBOARD.md
	$(BIN)/rbl leaderboard $(RUNS) --format html --out docs/leaderboard.html

bench: $(VENV)/.peers
	$(BIN)/python benchmarks/peers/pgd.py --model cifar10-resnet-at
	$(BIN)/python benchmarks/peers/pgd.py --model cifar10-resnet
	$(BIN)/python benchmarks/peers/cw.py --model cifar10-resnet
	$(BIN)/python benchmarks/peers/startup.py
	$(BIN)/python benchmarks/peers/training.py
	$(BIN)/python benchmarks/peers/verdict.py --model mnist-cnn-at --eps 0.3 --n 100 --seeds 1 --cells $(VENV)/cells
	$(BIN)/python benchmarks/peers/liars.py --n 30 --seeds 1 --cells $(VENV)/cells

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
