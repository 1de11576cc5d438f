# make demo   installs into .venv, runs the demo teacher on real vLLM, and shows what came of it
# make test   installs into .venv, runs every check and test
# make check  the quick part of them: style, types, fast tests
# make drills the long drills, of which make test has shorter ones

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# uv does not read pip's configuration: hand it the folders in which pip looks for wheels (torch's CPU build may lie there).
FIND_LINKS = $${PIP_FIND_LINKS:-$$($(BIN)/pip config get global.find-links 2>/dev/null)}
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --override overrides.txt \
	--editable '.[cpu,students,s3,dev]'
TORCH_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: demo test check drills clean

demo: .venv/installed
	$(BIN)/factory run jobs/configs/demo.yaml

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not ray and not vllm and not slow"

test: check
	$(BIN)/pytest -q -n 2 --dist loadfile --durations 10 -m "(slow or ray) and not (vllm or alone or drill)"
	$(BIN)/pytest -q --durations 10 -m "(vllm or alone) and not drill"

drills: .venv/installed
	$(BIN)/pytest -q --durations 10 -m drill

.venv/installed: Makefile pyproject.toml constraints.txt overrides.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v == (3, 11) or sys.exit("Python 3.11 is needed, \
	this is %d.%d: give one with make PYTHON=/path/to/python3.11" % v)'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/pip install --quiet uv
	UV_FIND_LINKS="$(FIND_LINKS)" $(INSTALL) || $(INSTALL) --index $(TORCH_INDEX) --index-strategy unsafe-best-match
	touch $@

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
