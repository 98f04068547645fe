# Every target builds with the release profile alone, so that what attnkit depends on is compiled once.

SHELL := /bin/sh
PYTHON ?= python3
# Python environments of tests and benchmarks. Relative paths are below the checkout.
ATTNKIT_CACHE ?= .cache
REQUIREMENTS := tests/requirements.txt
TORCH_REQUIREMENTS := tests/requirements-torch.txt
# Those that capture is tested with beside the one that is required, and what the oldest of them need.
OLDER_DIFFUSERS := 0.40.0 0.37.0 0.35.2 0.34.0 0.33.1
TESTS_OF_WAN := $(patsubst %,tests/capture/test_%.py,ways capture text_axis tokens)
OLDER_TRANSFORMERS := transformers==4.51.3 tokenizers==0.21.4 huggingface_hub==0.36.0
# More arguments for benches/ingest.py.
BENCH_ARGS ?=
# More arguments for benches/counts.py, such as --videos 100 1000.
COUNTS_BENCH_ARGS ?=
# More arguments for benches/scale.py.
SCALE_BENCH_ARGS ?=
# More arguments for benches/query.py.
QUERY_BENCH_ARGS ?=
# More arguments for benches/render.py.
RENDER_BENCH_ARGS ?=
# Where the document of a run of the benchmarks goes, and where what its scripts found.
BENCH_REPORT ?= docs/bench-run.md
BENCH_DIR ?= $(TARGET)/bench
# Seconds that each target is fuzzed for, and the targets.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= npy npy_gzip npz torch torch_gzip gzip metadata summary settings template document shard part store
# More arguments for pytest, such as -k power.
TORTURE_ARGS ?=
# More arguments for benches/python.py.
PYTHON_BENCH_ARGS ?=
# More arguments for benches/capture.py.
CAPTURE_BENCH_ARGS ?=

DENY_VERSION := 0.20.2
DENY = $(ATTNKIT_CACHE)/cargo-deny-$(DENY_VERSION)

# What the benchmark of questions has beside what the tests have.
ZARRS := zarrs==0.2.3
ZARRS_HOME = $(ATTNKIT_CACHE)/$(subst ==,-,$(ZARRS))
# What the benchmark of films is beside.
OPENCV := opencv-python-headless==5.0.0.93
OPENCV_HOME = $(ATTNKIT_CACHE)/$(subst ==,-,$(OPENCV))
# What the benchmark of capture is beside.
CAPTURE_PEER := attention-map-diffusers==1.0.0
CAPTURE_PEER_HOME = $(ATTNKIT_CACHE)/$(subst ==,-,$(CAPTURE_PEER))

# The profile of the tests: release, with debug assertions and overflow checks in our own code (Cargo.toml).
CHECKED := CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true

BENCH_BINARIES = --attnkit "$(TARGET)/release/attnkit" --synth "$(TARGET)/release/examples/synth"

# Where cargo builds, as CARGO_TARGET_DIR or a cargo configuration has it; short where it is in the checkout.
TARGET = $(subst $(CURDIR)/,,$(shell $(if $(CARGO_TARGET_DIR),CARGO_TARGET_DIR='$(CARGO_TARGET_DIR)' )cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'))
# One environment for each state of the requirements and each Python.
VENV = $(ATTNKIT_CACHE)/venv-$(shell { cat $(REQUIREMENTS); $(PYTHON) --version; } 2>/dev/null | cksum | cut -d ' ' -f 1)
TORCH_VENV = $(ATTNKIT_CACHE)/torch-$(shell { cat $(TORCH_REQUIREMENTS) tests/capture/environment.py; $(PYTHON) --version; } 2>/dev/null | cksum | cut -d ' ' -f 1)

.PHONY: help build dist demo test test-torch test-torch-versions python torture fuzz bench bench-capture
.PHONY: lint lint-rust lint-python deny fmt clean need-rust need-python venv torch-venv

help:
	@echo 'make build   the attnkit binary'
	@echo 'make dist    the same, small: what is handed out'
	@echo 'make demo    ingest the bundled dumps and look at the result'
	@echo 'make test    all tests: Rust, the readers of other projects, the Python package'
	@echo 'make test-torch  tests of capture, on tiny pipelines of diffusers: torch is downloaded, half a gigabyte'
	@echo 'make test-torch-versions  the same, and those of WAN with each older diffusers that is supported'
	@echo 'make python  the Python package, into the environment of the tests'
	@echo 'make torture every fault, power loss and flipped bit of which make test draws a sample: an hour or two'
	@echo 'make fuzz    the readers, with inputs that a fuzzer makes up: a minute for each kind'
	@echo 'make bench   speed of ingest, read-back, queries, Python and capture, beside what users would use instead; writes $(BENCH_REPORT)'
	@echo 'make bench-capture  what capture costs, alone: downloads as make test-torch does'
	@echo 'make lint    formatting, clippy, types, documentation, licences of dependencies; no warning is let through'
	@echo 'make fmt     format the Rust and Python code'
	@echo 'make clean   remove everything that was built'

build: need-rust
	cargo build --release --workspace --bin attnkit

dist: need-rust
	cargo rustc --locked --profile dist --bin attnkit -- -C strip=symbols
	@ls -l "$(TARGET)/dist/attnkit"

demo: build
	@PATH="$$(cd "$(TARGET)/release" && pwd):$$PATH" sh docs/demo.sh "$(TARGET)/demo"

# The binary that the readers judge comes with the tests: building it apart would build what it depends on twice.
test: need-rust venv
	$(CHECKED) cargo test --release --workspace
	$(CHECKED) $(MAKE) python
	ATTNKIT_BIN="$(abspath $(TARGET))/release/attnkit" PYTHONDONTWRITEBYTECODE=1 "$(VENV)/bin/python" -m pytest -q -p no:cacheprovider tests/readers
	ATTNKIT_BIN="$(abspath $(TARGET))/release/attnkit" PYTHONDONTWRITEBYTECODE=1 "$(VENV)/bin/python" -m pytest -q -p no:cacheprovider tests/torture
	"$(VENV)/bin/python" -m mypy.stubtest attnkit._native
	ATTNKIT_BIN="$(abspath $(TARGET))/release/attnkit" PYTHONDONTWRITEBYTECODE=1 "$(VENV)/bin/python" -m pytest -q -p no:cacheprovider python/tests
	@echo 'Left out: capture from pipelines of diffusers, which `make test-torch` tests.'

# Puts the package into an environment. Built with what cargo built already; nothing is downloaded beside what it has.
install = PATH="$$(cd "$(1)/bin" && pwd):$$PATH" "$(1)/bin/python" -m pip install --quiet --disable-pip-version-check \
  --no-build-isolation --no-deps --force-reinstall ./python

# Puts a package, without what it depends on, into a directory of its own: environment, package, directory.
install_alone = @test -e "$(3)/ready" || { "$(1)/bin/python" -m pip install --quiet --disable-pip-version-check \
  --no-deps --upgrade --target "$(3)" $(2) && touch "$(3)/ready"; }

# The environment stays in the cache; attnkit is the one of this checkout.
test-torch: need-rust torch-venv
	$(CHECKED) $(call install,$(TORCH_VENV))
	PYTHONDONTWRITEBYTECODE=1 "$(TORCH_VENV)/bin/python" -m pytest -q -p no:cacheprovider tests/capture

# WAN with older versions of diffusers, each in a directory of its own beside what is in the environment.
test-torch-versions: test-torch
	for version in $(OLDER_DIFFUSERS); do \
	  case $$version in 0.33.*|0.34.*) more="$(OLDER_TRANSFORMERS)";; *) more=;; esac; \
	  older="$(TORCH_VENV)/diffusers-$$version"; \
	  test -e "$$older/made" || { rm -rf "$$older" && "$(TORCH_VENV)/bin/python" -m pip install --quiet \
	    --disable-pip-version-check --no-deps --target "$$older" diffusers==$$version $$more && touch "$$older/made"; } && \
	  PYTHONPATH="$$older" PYTHONDONTWRITEBYTECODE=1 "$(TORCH_VENV)/bin/python" -m pytest -q -p no:cacheprovider $(TESTS_OF_WAN) || exit 1; \
	done

python: need-rust venv
	$(call install,$(VENV))

# Every call that can fail, every state that a power loss can leave, ten thousand flipped bits: an hour or two. `make test` draws a sample.
torture: need-rust venv
	$(CHECKED) cargo build --release --workspace --bin attnkit
	ATTNKIT_TORTURE=1 ATTNKIT_BIN="$(abspath $(TARGET))/release/attnkit" PYTHONDONTWRITEBYTECODE=1 \
	  "$(VENV)/bin/python" -m pytest -q -rP -p no:cacheprovider tests/torture $(TORTURE_ARGS)

# Needs cargo-fuzz and a nightly toolchain: fuzz/README.md. What is found stays in fuzz/found and fuzz/artifacts.
fuzz: need-rust
	cd fuzz && for target in $(FUZZ_TARGETS); do mkdir -p found/$$target && \
	  cargo +nightly fuzz run -O -s none $$target found/$$target corpus/$$target -- \
	  -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=512 -malloc_limit_mb=256 -timeout=5 -print_final_stats=1 || exit 1; done

# What an earlier run found goes first: the document is of one run. bench-capture puts attnkit beside torch, where
# python.py finds both.
bench: need-rust venv torch-venv
	cargo build --release --workspace --bin attnkit --example synth --example readback --example ask
	$(call install,$(VENV))
	$(call install_alone,$(VENV),$(ZARRS),$(ZARRS_HOME))
	@mkdir -p "$(BENCH_DIR)" && rm -f "$(BENCH_DIR)"/*.json
	"$(VENV)/bin/python" benches/ingest.py $(BENCH_BINARIES) --readback "$(TARGET)/release/examples/readback" \
	  --json "$(BENCH_DIR)/ingest.json" $(BENCH_ARGS)
	"$(VENV)/bin/python" benches/scale.py $(BENCH_BINARIES) --json "$(BENCH_DIR)/scale.json" $(SCALE_BENCH_ARGS)
	"$(VENV)/bin/python" benches/counts.py $(BENCH_BINARIES) --json "$(BENCH_DIR)/counts.json" $(COUNTS_BENCH_ARGS)
	PYTHONPATH="$(abspath $(ZARRS_HOME))" "$(VENV)/bin/python" benches/query.py $(BENCH_BINARIES) \
	  --ask "$(TARGET)/release/examples/ask" --torch-python "$(TORCH_VENV)/bin/python" \
	  --json "$(BENCH_DIR)/query.json" $(QUERY_BENCH_ARGS)
	$(call install_alone,$(VENV),$(OPENCV),$(OPENCV_HOME))
	PYTHONPATH="$(abspath $(OPENCV_HOME))" "$(VENV)/bin/python" benches/render.py $(BENCH_BINARIES) \
	  --ffmpeg "$$("$(VENV)/bin/python" -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())')" \
	  --json "$(BENCH_DIR)/render.json" $(RENDER_BENCH_ARGS)
	$(MAKE) bench-capture
	"$(TORCH_VENV)/bin/python" benches/python.py $(BENCH_BINARIES) --json "$(BENCH_DIR)/python.json" $(PYTHON_BENCH_ARGS)
	"$(VENV)/bin/python" benches/report.py "$(BENCH_DIR)" "$(BENCH_REPORT)"

# Of attention-map-diffusers nothing but itself is installed: what it needs to capture is in the environment.
bench-capture: need-rust torch-venv
	$(call install,$(TORCH_VENV))
	$(call install_alone,$(TORCH_VENV),$(CAPTURE_PEER),$(CAPTURE_PEER_HOME))
	@mkdir -p "$(BENCH_DIR)"
	"$(TORCH_VENV)/bin/python" benches/capture.py --peer "$(CAPTURE_PEER_HOME)" \
	  --json "$(BENCH_DIR)/capture.json" $(CAPTURE_BENCH_ARGS)

lint: lint-python lint-rust deny

lint-rust: need-rust
	cargo fmt --check
	$(CHECKED) cargo clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

lint-python: need-python venv
	"$(PYTHON)" .ci/widths.py
	"$(VENV)/bin/ruff" check
	"$(VENV)/bin/ruff" format --check
	"$(VENV)/bin/python" -m mypy --config-file python/pyproject.toml python/attnkit python/attention_analyzer

# Licences and origins of the dependencies, by deny.toml. Built once, into the cache.
deny: need-rust
	@test -x "$(DENY)/bin/cargo-deny" || \
	  cargo install --quiet --locked cargo-deny --version $(DENY_VERSION) --root "$(DENY)" --target-dir "$(DENY)/build"
	@rm -rf "$(DENY)/build"
	"$(DENY)/bin/cargo-deny" --offline --log-level error check licenses bans sources

fmt: need-rust venv
	cargo fmt
	"$(VENV)/bin/ruff" check --fix-only
	"$(VENV)/bin/ruff" format

clean: need-rust
	cargo clean
	rm -rf "$(ATTNKIT_CACHE)"/venv-*

# What a fresh machine must have, each asked for by the targets that need it.

need-rust:
	@command -v cargo >/dev/null || { echo 'cargo is missing: install Rust; the version needed is in Cargo.toml' >&2; exit 1; }
	@command -v "$${CC:-cc}" >/dev/null || { echo 'a C compiler is missing: install gcc or clang (Debian: apt install build-essential), or name one in CC' >&2; exit 1; }

need-python:
	@command -v "$(PYTHON)" >/dev/null || { echo '$(PYTHON) is missing: install Python 3.11 or later, or name one: make PYTHON=python3.12' >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$("$(PYTHON)" --version): 3.11 or later is needed, name one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { echo '$(PYTHON) cannot make environments: install its venv module (Debian: apt install python3-venv)' >&2; exit 1; }

venv: need-python
	@test -e "$(VENV)/ready" || { \
	  echo 'making $(VENV)' && rm -rf "$(VENV)" && mkdir -p "$(ATTNKIT_CACHE)" && "$(PYTHON)" -m venv "$(VENV)" && \
	  "$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS) && touch "$(VENV)/ready"; }

torch-venv: need-python
	"$(PYTHON)" tests/capture/environment.py "$(TORCH_VENV)" $(TORCH_REQUIREMENTS)
