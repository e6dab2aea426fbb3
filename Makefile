.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
SOURCES := contract edge hub simulators tests

.PHONY: help demo test check bench chaos lock proto messages

help:        ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/: .*## */	/' | expand -t 12

demo:        ## a smart commune on this machine; ARGS="--seconds 60 --json" runs unattended
	@.ci/prepare demo
	@$(PYTHON) -m simulators.demo $(ARGS)

test:        ## all tests; K=expression for some
	@.ci/prepare test
	@$(PYTHON) -m pytest -q $(if $(K),-k "$(K)",) $(ARGS)

check:       ## format, lint, strict types, borders between packages
	@.ci/prepare test
	@$(PYTHON) -m ruff format --check $(SOURCES)
	@$(PYTHON) -m ruff check $(SOURCES)
	@$(PYTHON) -m mypy $(SOURCES)
	@.venv/bin/lint-imports

bench:       ## benchmarks, one JSON object a figure; B=ingest for one
	@.ci/prepare test
	@for one in $(if $(B),$(B),ingest drain influx seal query edge wear bus cameras announce audit rights); do $(PYTHON) -P tests/bench/$$one.py || exit 1; done

chaos:       ## faults on purpose, judged by a script of its own; ARGS="--cycles 50 --seed 7 --json", --help for more
	@.ci/prepare test
	@$(PYTHON) -m tests.chaos $(ARGS)

lock:        ## lock what tests and demo install, by hash; the demo runs on the versions that were tested
	@.ci/prepare test
	$(PYTHON) -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --all-extras pyproject.toml -o requirements/test.txt
	$(PYTHON) -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --constraint requirements/test.txt $(addprefix --extra ,edge hub simulators speech build) pyproject.toml -o requirements/demo.txt
	echo esphome==2026.6.5 | $(PYTHON) -m uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate - -o requirements/esphome.txt

proto:       ## generate contract/sparkplug_pb2.py from its schema
	@python3 -m venv .venv-proto && .venv-proto/bin/pip install -q grpcio-tools
	cd contract && ../.venv-proto/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. sparkplug.proto

messages:    ## bring the pages' words into the catalogues
	$(PYTHON) -m babel.messages.frontend -q extract -F hub/web/messages/babel.cfg -k N_ --no-location --sort-output -o hub/web/messages/messages.pot hub/web
	$(PYTHON) -m babel.messages.frontend -q update -i hub/web/messages/messages.pot -d hub/web/messages --no-fuzzy-matching --omit-header
