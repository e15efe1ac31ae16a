# Everything runs in .venv, which the first target that needs it sets up (a minute or two, once).
#
#   PYTHON=python3.12   the interpreter that .venv is made from (default: the first found that is >= 3.11)
#   TORCH=auto          auto: PyTorch's CPU build where pip finds one and there is no NVIDIA GPU;
#                       cpu: that build or nothing; any: whatever pip chooses
#   PY=python           run the targets in an environment of your own; nothing is installed
#   SEED=2 WORKERS=2    the seed of `make run`; the number of processes of `make test`
#   PROFILE=scaled DATASETS=yelp METHODS=vae,aggressive SEEDS=0,1 DEVICE=auto PRECISION=auto CORES=2
#                       what `make sweep` makes: by default all that the tables need, two runs at a time

.DEFAULT_GOAL := help
VENV_PY := .venv/bin/python
STAMP := .venv/.ready

PYTHON ?=
TORCH ?= auto
PY ?= $(VENV_PY)
SEED ?= 2
WORKERS ?= 2
CELL_TIMEOUT ?= 900
TESTS ?= tests notebooks
LAB_ARGS ?=
BENCH_ARGS ?=
PROFILE ?= scaled
DATASETS ?=
METHODS ?=
SEEDS ?=
DEVICE ?= auto
PRECISION ?= auto
CORES ?=
SWEEP_ARGS ?=
NOTEBOOK ?= $(wildcard notebooks/*.ipynb)
SITE ?= build/site/html

TORCH_VERSION := $(shell sed -n 's/^torch==//p' requirements.lock)
RUN_OUT := results/notebooks/03_yelp.ipynb
SETUP := $(if $(filter $(VENV_PY),$(PY)),$(STAMP))

# An environment copied or moved from elsewhere would import the package from there: set up again.
ifneq ($(shell $(VENV_PY) -c 'print(open("$(STAMP)").read().strip())' 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

.PHONY: help setup run sweep test lab tables report bench gpu-check lint format notebooks check-notebooks site lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

setup: $(SETUP) ## make .venv with the exact versions of requirements.lock

run: $(SETUP) ## the main job: train or load on Yelp, and compare with the paper (SEED=2)
	@mkdir -p results/notebooks && touch results/notebooks/.started
	"$(PY)" -m papermill notebooks/03_yelp.ipynb $(RUN_OUT) -p seed $(SEED) --log-output
	@echo
	@echo "Executed notebook, with the figures in it:  $(RUN_OUT)"
	@echo "Records that this run made (what it loaded is named in the notebook):"
	@find "$${LAGVAE_RESULTS:-results}/runs" -name metrics.json -newer results/notebooks/.started | sort | sed 's/^/  /'

# The number of cores is profiles/default's unless it is given, so that SWEEP_ARGS="--workflow-profile slurm" has its own.
sweep: $(SETUP) ## all runs of the tables that have no record yet (PROFILE=scaled METHODS=vae SWEEP_ARGS="-n")
	"$(PY)" -m snakemake $(if $(CORES),--cores $(CORES)) $(SWEEP_ARGS) --config profile=$(PROFILE) device=$(DEVICE) \
	    precision=$(PRECISION) $(if $(DATASETS),'datasets=$(DATASETS)') $(if $(METHODS),'methods=$(METHODS)') $(if $(SEEDS),'seeds=$(SEEDS)')

# Smoke records go first: a run that is finished would be loaded, and its training left untested.
test: $(SETUP) ## ruff, the unit tests, and every notebook through nbval (WORKERS=2)
	"$(PY)" -m ruff check --quiet .
	"$(PY)" -m ruff format --check --quiet .
	@rm -rf "$${LAGVAE_RESULTS:-results}/runs/smoke"
	LAGVAE_PROFILE=smoke OMP_NUM_THREADS=1 "$(PY)" -m pytest -q -n $(WORKERS) --dist loadscope \
	    --nbval-lax --nbval-current-env --nbval-cell-timeout=$(CELL_TIMEOUT) $(TESTS)

# As root (in a container) Jupyter wants to be told that this is meant.
LAB_FLAGS := --LabApp.default_url=/lab/tree/notebooks \
    --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
    $(if $(filter 0,$(shell id -u)),--allow-root)
lab: $(SETUP) ## JupyterLab on the notebooks (LAB_ARGS="--no-browser --port=8890")
	"$(PY)" -m jupyterlab $(LAB_FLAGS) $(LAB_ARGS)

tables: $(SETUP) ## every table and figure of the paper that the records give, into results/ (PROFILE=scaled)
	"$(PY)" -m lagvae_lib tables --profile $(PROFILE)

report: $(SETUP) ## notebook 08, run on the records, as one HTML file without code: results/report.html
	"$(PY)" -m jupyter nbconvert --to html --no-input --execute --ExecutePreprocessor.timeout=-1 \
	    --output-dir results --output report notebooks/08_tables_and_figures.ipynb

# LAGVAE_RELEASED=/path/to/vae-lagging-encoder adds ratios to the released code.
bench: $(SETUP) ## time and memory against a textbook implementation (BENCH_ARGS="--only images")
	"$(PY)" -m benchmarks $(BENCH_ARGS)

gpu-check: $(SETUP) ## on a machine with a GPU: the tests, then precision, time and memory there in one report
	$(MAKE) test
	"$(PY)" -m benchmarks.gpu_check $(BENCH_ARGS)

lint: $(SETUP) ## ruff on .py and .ipynb, changing nothing
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .

format: $(SETUP) ## ruff on .py and .ipynb, changing what it can
	"$(PY)" -m ruff check --fix .
	"$(PY)" -m ruff format .

notebooks: $(SETUP) ## run the notebooks again in place, without metadata of the run (NOTEBOOK=notebooks/x.ipynb)
	"$(PY)" -m jupyter nbconvert --to notebook --execute --inplace \
	    --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.timeout=-1 $(NOTEBOOK)
	"$(PY)" -m lagvae_lib.notebook.clean $(NOTEBOOK)
	"$(PY)" docs/lines.py
	"$(PY)" -m pytest -q tests/test_notebooks_listed.py

check-notebooks: $(SETUP) ## are the notebooks listed, executed and clean?
	"$(PY)" -m pytest -q tests/test_notebooks_listed.py

site: $(SETUP) ## the essays, an interactive page and the library's interface as a web site (SITE=build/site/html)
	"$(PY)" docs/build.py $(SITE)

clean: ## remove .venv, caches and what the tests left; records and data stay
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis .snakemake results/notebooks results/runs/smoke
	find lagvae_lib tests benchmarks notebooks -name __pycache__ -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------------------- set-up

FIND_PYTHON = find_python() { \
    for p in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
        if "$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
        then echo "$$p"; return 0; fi; \
    done; \
    echo "No Python >= 3.11 with the modules venv and ensurepip among:" \
        "$(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python)." \
        "Install one (Debian: python3-venv), or name it: make setup PYTHON=/path/to/python" >&2; \
    return 1; }

# Usage: choose_torch PIP-PYTHON; prints the requirement. `torch==X` alone would take a CUDA build of several
# gigabytes wherever an index offers both, since +cu130 sorts above +cpu: so the CPU build is asked for by name.
CHOOSE_TORCH = choose_torch() { \
    case '$(TORCH)' in auto|cpu|any) ;; *) echo "TORCH=$(TORCH): expected auto, cpu or any" >&2; return 1;; esac; \
    if [ '$(TORCH)' = any ] || { [ '$(TORCH)' = auto ] && nvidia-smi -L >/dev/null 2>&1; }; then \
        echo 'torch==$(TORCH_VERSION)'; \
    elif "$$1" -m pip install -qq --dry-run --no-deps 'torch==$(TORCH_VERSION)+cpu' >/dev/null 2>&1; then \
        echo 'torch==$(TORCH_VERSION)+cpu'; \
    elif [ '$(TORCH)' = cpu ]; then \
        echo "pip finds no torch==$(TORCH_VERSION)+cpu: see 'PyTorch without CUDA' in README.md" >&2; return 1; \
    else \
        echo "No CPU build of torch $(TORCH_VERSION) on offer; taking the index's own (on Linux that may" \
            "bring CUDA libraries: see 'PyTorch without CUDA' in README.md)" >&2; \
        echo 'torch==$(TORCH_VERSION)'; \
    fi; }

# The stamp comes last. Until then .venv/.unfinished marks an environment that cannot be trusted, which the
# next call makes anew; a finished one is brought up to date in place.
$(STAMP): requirements.lock pyproject.toml
	@set -eu; $(FIND_PYTHON); $(CHOOSE_TORCH); \
	rm -f $(STAMP); \
	if [ -e .venv/.unfinished ] || ! $(VENV_PY) -c \
	    'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    python=$$(find_python); \
	    echo "Making .venv with $$("$$python" --version)"; \
	    "$$python" -m venv --clear .venv; \
	fi; \
	touch .venv/.unfinished; \
	torch=$$(choose_torch $(VENV_PY)); \
	echo "Installing $$torch and the rest of requirements.lock: a minute or two, and 2 GB of disk"; \
	$(VENV_PY) -m pip install -qq --disable-pip-version-check "$$torch" -r requirements.lock; \
	$(VENV_PY) -m pip install -qq --disable-pip-version-check --no-build-isolation --no-deps -e .; \
	$(VENV_PY) -m pip check; \
	$(VENV_PY) -m jupyter labextension disable --level=sys_prefix \
	    @jupyterlab/apputils-extension:announcements >/dev/null 2>&1; \
	pwd -P > $(STAMP); \
	rm -f .venv/.unfinished

lock: ## write requirements.lock anew: the newest versions that pyproject.toml allows, torch as pinned
	@set -eu; $(FIND_PYTHON); $(CHOOSE_TORCH); \
	python=$$(find_python); "$$python" -m venv --clear build/lock; \
	torch=$$(choose_torch build/lock/bin/python); \
	build/lock/bin/python -m pip install -qq "$$torch" setuptools -e '.[notebooks,test,site,sweep]'; \
	{ echo '# Exact versions of all that `make setup` installs; written by `make lock`, not by hand.'; \
	  echo '# What a CUDA build of torch needs beyond this (nvidia-*, triton) comes with it, at the versions it names.'; \
	  build/lock/bin/python -m pip freeze --all --exclude-editable --exclude pip \
	    | grep -viE '^(nvidia|triton|cuda)' | sed -E 's/^(torch==[^+]*)[+].*/\1/'; \
	} > build/requirements.lock; \
	mv build/requirements.lock requirements.lock; rm -rf build/lock; \
	echo "requirements.lock: $$(grep -c == requirements.lock) packages"
