# Two commands for newcomers: `make demo` and `make test`. The rest is for whoever works on cfcam.

PYTHON ?= python3
PIP = -m pip --disable-pip-version-check -q
DEMO = .venv
TEST = .venv-test
WHEEL = .wheel

.PHONY: demo test check lowest benchmark verification quality examples-js clean

demo: $(DEMO)/.ready
	$(DEMO)/bin/cfcam demo --out cfcam-demo

# Tests run against the built wheel, from outside the package folders.
test: $(TEST)/.ready
	rm -rf $(WHEEL)
	$(TEST)/bin/python -m build --wheel --no-isolation --outdir $(WHEEL) . > /dev/null
	$(TEST)/bin/python $(PIP) install --force-reinstall --no-deps $(WHEEL)/*.whl
	$(TEST)/bin/python $(PIP) install --force-reinstall --no-deps --no-build-isolation ./examples/flax_backend
	$(TEST)/bin/pytest $(PYTEST_ARGS)

check: $(TEST)/.ready
	$(TEST)/bin/ruff check
	$(TEST)/bin/ruff format --check
	$(TEST)/bin/mypy
	PYTHONPATH=.:backends $(TEST)/bin/lint-imports

# The oldest versions that pyproject.toml allows, really installed and tested; without JAX, which wants newer ones.
lowest:
	rm -rf .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python $(PIP) install --upgrade pip
	.venv-lowest/bin/python $(PIP) install -c tests/constraints.txt torch
	.venv-lowest/bin/python $(PIP) install -c tests/lowest.txt ".[onnx,cli]" --group test
	.venv-lowest/bin/python $(PIP) install --no-deps -r tests/peers.txt
	.venv-lowest/bin/pytest -W ignore::DeprecationWarning -k "not jax and not flax" $(PYTEST_ARGS)  # of old packages

benchmark: $(TEST)/.ready
	$(TEST)/bin/python benchmarks/core_speed.py

# Writes docs/verification.md; what was measured before is kept in .verification.
verification: $(TEST)/.ready
	$(TEST)/bin/python benchmarks/verification.py

# Writes docs/default.md, docs/default.html and docs/paper_claims.md. CFCAM_TEST_DATA is the folder of pretrained models
# and photographs; what was measured before is kept in .quality and .paper_claims.
quality: $(TEST)/.ready
	$(TEST)/bin/python benchmarks/quality.py
	$(TEST)/bin/python benchmarks/paper_claims.py

# An explain-ready file in Python, in Node and in a browser; all three must say the same of the map. Needs node, npm and
# a Chromium: CHROMIUM is its path.
CHROMIUM ?= $(shell command -v chromium || command -v google-chrome)
READY = examples/explain_ready

examples-js: $(DEMO)/.ready
	$(DEMO)/bin/cfcam export cfcam_core/demo/digits.onnx --with-map --out $(READY)/digits.explain.onnx
	cd $(READY) && npm install --silent
	$(DEMO)/bin/python $(READY)/use.py 6 > $(READY)/said.txt
	cd $(READY) && node use.mjs 6 >> said.txt && CHROMIUM="$(CHROMIUM)" node look.mjs 6 >> said.txt
	cat $(READY)/said.txt
	test $$(grep -c '^sum ' $(READY)/said.txt) = 3
	test $$(grep '^sum ' $(READY)/said.txt | sort -u | wc -l) = 1

$(DEMO)/.ready: pyproject.toml $(shell find cfcam_core backends -type f -not -name '*.pyc')
	test -x $(DEMO)/bin/python || $(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python $(PIP) install --upgrade pip
	$(DEMO)/bin/python $(PIP) install --force-reinstall --no-deps .
	$(DEMO)/bin/python $(PIP) install ".[onnx,cli]"
	touch $@

$(TEST)/.ready: pyproject.toml tests/constraints.txt tests/peers.txt
	test -x $(TEST)/bin/python || $(PYTHON) -m venv $(TEST)
	$(TEST)/bin/python $(PIP) install --upgrade pip
	$(TEST)/bin/python $(PIP) install -c tests/constraints.txt torch
	$(TEST)/bin/python $(PIP) install -c tests/constraints.txt ".[onnx,cli]" --group test --group jax --group check
	$(TEST)/bin/python $(PIP) install --no-deps -r tests/peers.txt
	touch $@

clean:
	rm -rf $(DEMO) $(TEST) .venv-lowest $(WHEEL) cfcam-demo
