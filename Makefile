# make setup      creates the environment in .venv (once)
# make train      trains and evaluates the demonstration model
# make nuclei     trains Mask R-CNN on your own data: a microscopy image, as in docs/OWN_DATA.md
# make far-cue    measures how far criss-cross attention sees, as a table and a picture
# make explore    writes a report of the model of make train, and pages that show where it and those of make far-cue attend
# make benchmark  measures the time and memory of criss-cross attention next to other implementations
# make docs       builds the documentation as a site, in site/
# make test       runs lint and all tests but those of tests/soak
# make soak       runs the long tests of tests/soak
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/ready
DATASETS := $(or $(DETECTRON2_DATASETS),datasets)
CONFIG := configs/digits/ccnet_mask_rcnn.yaml

.PHONY: setup train nuclei far-cue explore benchmark docs test lint format clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt tools/setup_env.sh tools/install_detectron2.py
	@sh tools/setup_env.sh $(VENV)
	@touch $@

train: setup
	@$(PYTHON) tools/train_net.py --config-file $(CONFIG)

nuclei: setup
	@$(PYTHON) examples/prepare_nuclei.py datasets/nuclei
	@$(PYTHON) tools/train_net.py --config-file configs/own/mask_rcnn.yaml --with criss_cross \
		--data datasets/nuclei --epochs 12

far-cue: setup
	@$(PYTHON) -m experiments.far_cue

# The last run of each: the folders are numbered.
explore: setup
	@run=$$(ls -d output/digits/ccnet_mask_rcnn/[0-9]* 2>/dev/null | sort -V | tail -n 1); \
	test -n "$$run" || { echo "error: there is no trained model; run make train first" >&2; exit 2; }; \
	$(PYTHON) tools/report.py $$run; \
	$(PYTHON) tools/explore.py --weights $$run --input $(DATASETS)/digits/val/00000[1-3].jpg --output $$run/explorer.html
	@study=$$(ls -d output/far_cue/[0-9]* 2>/dev/null | sort -V | tail -n 1); \
	test -n "$$study" || { echo "error: there are no networks of far_cue; run make far-cue first" >&2; exit 2; }; \
	$(PYTHON) tools/explore.py --weights $$study/any_ccnet_R1 --weights $$study/any_ccnet_R2 \
		--input $(DATASETS)/far_cue/any_val/000[1-3].png --output $$study/explorer.html

benchmark: setup
	@$(PYTHON) -m benchmarks

docs: setup
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet
	@echo "open site/index.html, or run '$(PYTHON) -m mkdocs serve' for the search"

lint: setup
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@$(VENV)/bin/lint-imports --no-logo

# One process per core with one thread each. The tests of one file run in one process, because they share fixtures.
test: lint
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder

soak: setup
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --maxprocesses 4 --dist load tests/soak

format: setup
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist site projects/*.egg-info
