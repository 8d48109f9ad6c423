# Each target is one line that a person could type. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BUILD_NATIVE := VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --reinstall-package tieout-native ./native
SANITIZED := tests/unit/matcher/test_compiled.py tests/unit/offline/test_compiled_columns.py
ENGINE ?= docker
COMPOSE ?= docker compose --file deploy/compose/compose.yaml $(addprefix --profile ,$(PROFILES))

.DEFAULT_GOAL := help
.PHONY: help install native sanitize demo up down images test simulate faults test-containers check format lock docs bench bench-all bench-peers clean

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

install: $(STAMP) ## build .venv from the hashed lock

$(STAMP): pyproject.toml locks/dev.txt locks/uv.txt $(wildcard native/pyproject.toml native/tieout_native/*.pyx)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tieout needs Python 3.11 or newer; set PYTHON=…"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/uv.txt
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode locks/dev.txt
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps -e .
	@if command -v $${CC:-cc} >/dev/null; then $(BUILD_NATIVE) || echo "the compiled core was not built (above); the matcher runs as Python, slower"; \
		else echo "no C compiler: the matcher runs as Python, slower (install gcc and Python's headers, then: make native)"; fi
	@touch $@

native: install  ## build the matcher's hot path in C (native/); install does it where a C compiler is
	@$(BUILD_NATIVE)

sanitize: install ## what is compiled, on hostile and broken input, under AddressSanitizer and UBSan (gcc)
	@rm -rf build/sanitized && mkdir -p build/sanitized/source && cp -r native/pyproject.toml native/tieout_native build/sanitized/source
	@CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all" LDFLAGS="-fsanitize=address,undefined" \
		$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --no-cache --target build/sanitized/native ./build/sanitized/source
	@LD_PRELOAD="$$(gcc -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH=build/sanitized/native \
		$(BIN)/python -m pytest --timeout 3600 $(SANITIZED)

demo: install    ## embedded Kafka and PostgreSQL, all services, a live stream; DEMO="--exit" leaves at the end
	@$(BIN)/tieout demo $(DEMO)

up: images       ## everything in containers (deploy/compose); PROFILES="observability external" adds theirs
	@deploy/compose/prepare.sh
	@$(COMPOSE) up --detach --wait && $(COMPOSE) ps

down:            ## stop what `make up` started; its data stay (docs/deploy.md says how to remove them)
	@$(COMPOSE) down

images:          ## build the image of every service with ENGINE (docker or podman)
	@for target in ingest matcher alerts bots; do \
		$(ENGINE) build --quiet $(BUILD_OPTIONS) --file deploy/Dockerfile --target $$target --tag localhost/tieout-$$target:dev \
			--label org.opencontainers.image.revision="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
			--label org.opencontainers.image.created="$$(date -u +%Y-%m-%dT%H:%M:%SZ)" . || exit; \
	done

test: install    ## every test, on a real Kafka and a real PostgreSQL; TESTS="…" chooses
ifeq ($(strip $(TESTS)),)
	@first=0; $(BIN)/python -m pytest -n 2 --dist loadfile tests/unit tests/integration tests/simulation || first=$$?; \
		$(BIN)/python -m pytest tests/e2e && exit $$first
else
	@$(BIN)/python -m pytest $(TESTS)
endif

simulate: install ## matcher and sink in simulated time; SEEDS=20000, or one: SEED=17
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED) --show,--seeds $(or $(SEEDS),2000))

faults: install  ## real processes, killed and frozen, and a broken broker, database and network; FAULTS="-k sigstop" chooses
	@$(BIN)/python -m pytest -s tests/faults $(FAULTS)

test-containers: install ## the images and a real Kafka and PostgreSQL in containers, by Docker or Podman; TESTS="…" chooses
	@tests/containers/run.sh $(TESTS)

check: install   ## formatting, lint, types, import contracts, generated documents
	@$(BIN)/ruff format --check services shared tieout tests bench
	@$(BIN)/ruff check services shared tieout tests bench
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m shared.contracts.schema --check
	@$(BIN)/python -m tieout.mcp_document --check
	@$(BIN)/python -m tieout.deploying.env_example --check
	@$(BIN)/python -m tieout.deploying.chart --check

format: install  ## format and mend what can be mended
	@$(BIN)/ruff format services shared tieout tests bench && $(BIN)/ruff check --fix services shared tieout tests bench

docs: install    ## write the documents that are generated from code
	@$(BIN)/python -m shared.contracts.schema
	@$(BIN)/python -m tieout.mcp_document
	@TIEOUT_WRITE_DOCS=1 $(BIN)/python -m pytest -q tests/integration/alerts/test_morning_review.py
	@$(BIN)/python -m tieout.deploying.env_example
	@$(BIN)/python -m tieout.deploying.chart

bench: install   ## the matcher against the pass-through limit, on its own broker
	@$(BIN)/tieout bench matcher

bench-peers: install ## the matcher beside Kafka Streams and Quix Streams, same legs, same broker (Java, Maven)
	@$(BIN)/python bench/peers/run.py

bench-all: install ## every benchmark one after the other, and their plots (about 40 minutes on a quiet machine)
	@$(BIN)/python bench/full.py && $(BIN)/uv run --no-project bench/plots.py

lock: install    ## resolve the locks anew
	@$(BIN)/python -m tieout.locks

clean:           ## remove what builds and runs leave behind
	@rm -rf $(VENV) build native/build native/*.egg-info native/tieout_native/*.c .tieout .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
