# Everything a newcomer needs: Python 3.11, pip and make.
#   make demo    sets up and runs the main job on a real model
#   make test    sets up and runs the tests
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Environments are keyed by their lock file: a changed lock rebuilds, anything else does not.
LOCK_KEY := $(shell cat requirements/dev.lock pyproject.toml | sha256sum | cut -c1-16)
STAMP := $(VENV)/.stamp-$(LOCK_KEY)
TORCH_KEY := $(shell sha256sum requirements/torch.lock | cut -c1-16)
TORCH_STAMP := .venv-torch/.stamp-$(TORCH_KEY)
ORACLES_KEY := $(shell cat requirements/oracles.lock 2>/dev/null | sha256sum | cut -c1-16)
ORACLES_STAMP := .venv-oracles/.stamp-$(ORACLES_KEY)
TFLITE_KEY := $(shell sha256sum requirements/tflite-runtime.lock | cut -c1-16)
TFLITE_STAMP := .venv-tflite/.stamp-$(TFLITE_KEY)
# onnx2tf 2.x needs a newer Python than we do.
PYTHON312 ?= python3.12
ONNX2TF_KEY := $(shell sha256sum requirements/onnx2tf.lock | cut -c1-16)
ONNX2TF_STAMP := .venv-onnx2tf/.stamp-$(ONNX2TF_KEY)
OPTICS_KEY := $(shell cat requirements/optics-oracles.lock requirements/optnn.lock | sha256sum | cut -c1-16)
OPTICS_STAMP := .venv-optics-oracles/.stamp-$(OPTICS_KEY)
OPENVINO_KEY := $(shell sha256sum requirements/openvino.lock | cut -c1-16)
OPENVINO_STAMP := .venv-openvino/.stamp-$(OPENVINO_KEY)
QPEERS_KEY := $(shell sha256sum requirements/quantization-peers.lock | cut -c1-16)
QPEERS_STAMP := .venv-peers/.stamp-$(QPEERS_KEY)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.PHONY: train-shiftadd bench-routing tvm-runtime-wheel bench-tvm-zoo bench-native-memory bench-quantization bench-quantization-latency bench-integer-kernels bench-quantization-ablation demo test test-all lint format bench bench-five bench-latency bench-mutants bench-cost models \
	oracles optics-oracles bench-optics bench-optical bench-optical-noise bench-optical-sweep env clean test-arm64 test-tflite-runtime tflite-env \
	bench-peers bench-peers-latency bench-compile-time onnx2tf-env openvino-env bench-shapes \
	peers-env bench-tvm-kernels bench-native-latency bench-primitives bench-shiftadd

env: $(STAMP)

openvino-env: $(OPENVINO_STAMP)

$(OPENVINO_STAMP): requirements/openvino.lock
	@echo "setting up .venv-openvino (once; OpenVINO, which the engine's tests run)"
	@test -x .venv-openvino/bin/python || $(PYTHON) -m venv .venv-openvino
	@.venv-openvino/bin/python $(PIP_INSTALL) -r requirements/openvino.lock
	@rm -f .venv-openvino/.stamp-*
	@touch $@

peers-env: $(QPEERS_STAMP)

$(QPEERS_STAMP): requirements/quantization-peers.lock
	@echo "setting up .venv-peers (once; the public quantizers and their engines)"
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python $(PIP_INSTALL) -r requirements/quantization-peers.lock
	@rm -f .venv-peers/.stamp-*
	@touch $@

$(STAMP): requirements/dev.lock pyproject.toml
	@echo "setting up $(VENV) (once, about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP_INSTALL) -r requirements/dev.lock
	@$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.stamp-*
	@touch $@

$(TORCH_STAMP): requirements/torch.lock
	@echo "setting up .venv-torch (once, some minutes; PyTorch for the CPU)"
	@test -x .venv-torch/bin/python || $(PYTHON) -m venv .venv-torch
	@.venv-torch/bin/python $(PIP_INSTALL) -r requirements/torch.lock
	@rm -f .venv-torch/.stamp-*
	@touch $@

$(ORACLES_STAMP): requirements/oracles.lock
	@echo "setting up .venv-oracles (once; public converters as test oracles)"
	@test -x .venv-oracles/bin/python || $(PYTHON) -m venv .venv-oracles
	@.venv-oracles/bin/python $(PIP_INSTALL) -r requirements/oracles.lock
	@rm -f .venv-oracles/.stamp-*
	@touch $@

$(TFLITE_STAMP): requirements/tflite-runtime.lock
	@echo "setting up .venv-tflite (once; the last tflite-runtime)"
	@test -x .venv-tflite/bin/python || $(PYTHON) -m venv .venv-tflite
	@.venv-tflite/bin/python $(PIP_INSTALL) -r requirements/tflite-runtime.lock
	@rm -f .venv-tflite/.stamp-*
	@touch $@

$(ONNX2TF_STAMP): requirements/onnx2tf.lock
	@echo "setting up .venv-onnx2tf (once; onnx2tf as a peer)"
	@test -x .venv-onnx2tf/bin/python || $(PYTHON312) -m venv .venv-onnx2tf
	@.venv-onnx2tf/bin/python $(PIP_INSTALL) -r requirements/onnx2tf.lock
	@rm -f .venv-onnx2tf/.stamp-*
	@touch $@

$(OPTICS_STAMP): requirements/optics-oracles.lock requirements/optnn.lock
	@echo "setting up .venv-optics-oracles (once; hcipy, LightPipes, torchoptics, optnn)"
	@test -x .venv-optics-oracles/bin/python || $(PYTHON) -m venv .venv-optics-oracles
	@.venv-optics-oracles/bin/python $(PIP_INSTALL) -r requirements/optics-oracles.lock
	@.venv-optics-oracles/bin/python $(PIP_INSTALL) --no-deps -r requirements/optnn.lock
	@rm -f .venv-optics-oracles/.stamp-*
	@touch $@

tflite-env: $(TFLITE_STAMP)

optics-oracles: $(OPTICS_STAMP)

# Without Python 3.12 there is no peer; the benchmarks then say so and measure nothing.
onnx2tf-env:
	@if test -x .venv-onnx2tf/bin/python || command -v $(PYTHON312) >/dev/null; \
	then $(MAKE) --no-print-directory $(ONNX2TF_STAMP); \
	else echo "skipped: needs Python 3.12 (PYTHON312=/path/to/python3.12)"; fi

demo: $(STAMP)
	@$(BIN)/python -m examples.demo

# Two workers, a file each: fixtures of a module are made once.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

test: $(STAMP)
	@$(PYTEST) -m "not long"

test-all: $(STAMP) models oracles tflite-env optics-oracles
	@$(PYTEST)

# ARM64 under emulation; needs qemu-user-static and debootstrap (installed if run as root).
# A skip says so and ends with exit code 77, which make reports as an error: it is no pass.
test-arm64: $(STAMP) models
	@$(BIN)/python -m benchmarks.arm64
	@$(BIN)/python -m pytest -q tests/targets/tvm/test_shifts_arm64.py

# What a device installs beside apache-tvm-ffi for native code; prints its size.
tvm-runtime-wheel: $(STAMP)
	@$(BIN)/python -m benchmarks.device.tvm_wheel

test-tflite-runtime: $(STAMP) $(TFLITE_STAMP) models
	@$(BIN)/python -m benchmarks.tflite_runtime

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy -p edgevit
	@$(BIN)/mypy benchmarks examples tests
	@$(BIN)/python -m pytest -q tests/packaging -m "not long"

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

models: $(STAMP) $(TORCH_STAMP)
	@$(BIN)/python -m benchmarks.corpus.packages
	@.venv-torch/bin/python -m benchmarks.corpus.timm_models

zoo-models: $(STAMP) $(TORCH_STAMP) models
	@$(BIN)/python -m benchmarks.corpus.packages ppocrv6_rec_small vit_s_focus
	@.venv-torch/bin/python -m benchmarks.corpus.zoo_models

oracles: $(STAMP) $(ORACLES_STAMP) models
	@$(BIN)/python -m benchmarks.oracles_coreml

bench: bench-five bench-mutants bench-latency

bench-five: $(STAMP) models
	@$(BIN)/python -m benchmarks.five_models

# Models trained on Fashion-MNIST, <name>_fashion.onnx; without them their rows are misses.
TRAINED ?= .cache/trained

# ZOO_OPTIONS=--resume goes on where another version of the code stopped.
bench-zoo: $(STAMP) zoo-models
	@$(BIN)/python -m benchmarks.zoo --trained $(TRAINED) $(ZOO_OPTIONS) \
		--json build/zoo/zoo.json --page build/zoo/zoo.html --markdown build/zoo/zoo.md

# Every model of the zoo as native code, one exporter's file each. ZOO_OPTIONS=--resume goes on.
bench-tvm-zoo: $(STAMP) zoo-models
	@$(BIN)/python -m benchmarks.zoo --backends tvm --samples 0 --once --trained $(TRAINED) \
		$(ZOO_OPTIONS) --json build/zoo/tvm.json --markdown build/zoo/tvm.md
	@$(BIN)/python -m benchmarks.five_models --models ppocrv4_rec --targets tvm

bench-native-memory: $(STAMP) models
	@$(BIN)/python -m benchmarks.native_memory

bench-shapes: $(STAMP) zoo-models
	@$(BIN)/python -m benchmarks.shapes

bench-mutants: $(STAMP)
	@$(BIN)/python -m benchmarks.mutants

# QUANTIZATION_OPTIONS=--resume goes on where another version of the code stopped;
# it also takes names of models.
bench-quantization: $(STAMP) $(QPEERS_STAMP) models
	@$(BIN)/python -m benchmarks.corpus.packages ppocrv6_rec_small vit_s_focus
	@$(BIN)/python -m benchmarks.corpus.probe
	@$(BIN)/python -m benchmarks.quantization $(QUANTIZATION_OPTIONS)

bench-shiftadd: $(STAMP) $(TORCH_STAMP) models
	@$(BIN)/python -m benchmarks.corpus.packages ppocrv6_rec_small vit_s_focus
	@$(BIN)/python -m benchmarks.corpus.probe
	@.venv-torch/bin/python -m benchmarks.shiftadd $(SHIFTADD_OPTIONS) --only fp32 --only g >/dev/null
	@$(BIN)/python -m benchmarks.shiftadd $(SHIFTADD_OPTIONS)

bench-integer-kernels: $(STAMP) $(QPEERS_STAMP)
	@$(BIN)/python -m benchmarks.kernels

# LATENCY_OPTIONS="--files only" makes the files and times nothing; "--files reuse" times those.
bench-quantization-latency: $(STAMP) $(QPEERS_STAMP) models
	@.venv-torch/bin/python -m benchmarks.corpus.timm_models mobilevit_s
	@$(BIN)/python -m benchmarks.quantization.latency $(LATENCY_OPTIONS)

# The rows with gradients need torch, and are shown once they were measured there.
bench-quantization-ablation: $(STAMP) $(TORCH_STAMP) models
	@.venv-torch/bin/python -m benchmarks.quantization.ablation --torch >/dev/null
	@$(BIN)/python -m benchmarks.quantization.ablation

bench-latency: $(STAMP) models
	@$(BIN)/python -m benchmarks.latency

bench-peers: bench-peers-latency bench-compile-time

bench-peers-latency: $(STAMP) zoo-models onnx2tf-env
	@$(BIN)/python -m benchmarks.peers_latency

# OpenBLAS chooses its kernels by the processor only where no variable tells it otherwise.
# Peers' files: make bench-quantization-latency, or the command's --files only.
bench-native-latency: $(STAMP) peers-env models
	@$(BIN)/python -m benchmarks.native_latency

bench-tvm-kernels: $(STAMP)
	@env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
	  $(BIN)/python -m benchmarks.tvm_kernels --rounds 40
	@$(BIN)/python -m benchmarks.tvm_roofline --rounds 40

# Shifts and additions next to float32, float16 and int8: on this CPU; on a GPU:
# python -m benchmarks.gpu.primitives, which needs nvcc and PyTorch.
bench-primitives: $(STAMP)
	@env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
	  $(BIN)/python -m benchmarks.primitives --rounds 30

bench-compile-time: $(STAMP) $(ORACLES_STAMP) models onnx2tf-env
	@$(BIN)/python -m benchmarks.compile_time

bench-optical: $(STAMP) models
	@$(BIN)/python -m benchmarks.optical_exactness fashion_vit_ts fashion_hybrid_ts \
		deit_tiny_patch16_224_ts mobilevit_xxs_ts convnext_atto_ts ppocrv4_rec
	@$(BIN)/python -m benchmarks.optical_exactness --wave --plane 256x256 --samples 100 \
		fashion_vit_ts fashion_hybrid_ts
	@$(BIN)/python -m benchmarks.optical_exactness --wave deit_tiny_patch16_224_ts ppocrv4_rec
	@$(BIN)/python -m benchmarks.optical_text
	@$(BIN)/python -m benchmarks.optical_speed --cpu --threads 1 \
		fashion_vit_ts fashion_hybrid_ts deit_tiny_patch16_224_ts

# Nine networks; about an hour each on two cores, a minute or two each on a GPU.
# All stages of both fixtures: minutes on a GPU; on two cores about two hours (extrapolated).
TRAIN_JOBS ?= 1
train-shiftadd: $(STAMP) $(TORCH_STAMP)
	@.venv-torch/bin/python -m examples.shiftadd_training.all --networks hybrid,vit --jobs $(TRAIN_JOBS)
	@.venv-torch/bin/python -m examples.shiftadd_training.export \
		build/shiftadd/*-shift-?.npz build/shiftadd/*-mixture-?.npz
	@$(BIN)/python -m examples.shiftadd_training.table build/shiftadd
	@$(BIN)/python -m benchmarks.shiftadd_bundles build/shiftadd/*-mixture-?.onnx

# Some ten minutes of one core; needs the trained models in .cache/trained.
bench-routing: $(STAMP)
	@$(BIN)/python -m benchmarks.routing
	@$(BIN)/python -m benchmarks.routing --table
	@$(BIN)/python -m benchmarks.routing --picture build/routing/routing.png

convshare-training: $(STAMP) $(TORCH_STAMP)
	@for kind in linear valid same; do for seed in 0 1 2; do \
		.venv-torch/bin/python -m examples.convshare_training.train --kind $$kind --seed $$seed \
			|| exit 1; done; done
	@.venv-torch/bin/python -m examples.convshare_training.export build/convshare/*.npz
	@.venv-torch/bin/python -m examples.convshare_training.picture build/convshare \
		build/convshare/attention.png
	@$(BIN)/python -m examples.convshare_training.table build/convshare

# Hours on a busy machine: 10,000 images a point for the garments, 200 for the texts.
bench-optical-noise: $(STAMP) models
	@$(BIN)/python -m benchmarks.optical_noise curves fashion_vit_ts --json build/optics/vit.json
	@$(BIN)/python -m benchmarks.optical_noise curves fashion_hybrid_ts \
		--json build/optics/hybrid.json
	@$(BIN)/python -m benchmarks.optical_noise curves ppocrv4_rec --samples 200 \
		--json build/optics/texts.json
	@$(BIN)/python -m benchmarks.optical_noise picture build/optics/noise.png \
		build/optics/vit.json build/optics/hybrid.json build/optics/texts.json
	@$(BIN)/python -m benchmarks.optical_noise paths fashion_vit_ts --samples 100 --plane 256x256
	@$(BIN)/python -m benchmarks.optical_noise paths fashion_hybrid_ts --samples 100 --plane 256x256

bench-optical-sweep: $(STAMP)
	@$(BIN)/python -m benchmarks.optical_sweep --picture build/optics/front.png

bench-cost: $(STAMP) $(TORCH_STAMP)
	@.venv-torch/bin/python -m benchmarks.corpus.phone_models
	@$(BIN)/python -m benchmarks.cost_model

bench-optics: $(STAMP) $(OPTICS_STAMP)
	@$(BIN)/python -m benchmarks.optics

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
