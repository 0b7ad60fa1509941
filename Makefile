# The same commands for people and for CI. Each prepares what it needs first; see scripts/setup.
# ARGS= is handed to pytest or to the benchmarks: make test ARGS="-k lease -x"
.PHONY: help setup run test lint mutation bench soak chaos newcomer clean-machine screenshots install
.NOTPARALLEL:
# Python is started hundreds of times: what it has compiled, it keeps.
unexport PYTHONDONTWRITEBYTECODE

# Many tests wait: for a time-out, a proxy's patience, a desktop. So there are more workers than cores, but
# for SQLite's part.
# What is decided in the database is decided on SQLite as on PostgreSQL.
# What needs servers and desktops, or only reads, decides nothing there.
ELSEWHERE := stream event_streams token_streams flow upstream real_desktops start_desktop container
ELSEWHERE += long_polls readyz uvicorn support_tcp_proxy support_services moving ratelimits two_servers lease_storm outages real_screenshots
ELSEWHERE += webhook_outages client many_nodes observability command_line memory
ELSEWHERE += security_headers proxy_signin provider_signin secrets soak screenshots translations
ON_BOTH_DATABASES := $(filter-out $(ELSEWHERE:%=tests/integration/test_%.py),$(wildcard tests/integration/test_*.py))

PYTHON_TOOL := .venv/bin/python -m
SHELL_SCRIPTS := .ci/run $(shell grep -rlE '^\#!.*bash|shellcheck shell=' scripts deploy)

help:
	@echo "make setup    prepare everything that manage.py and the tests need"
	@echo "make run      two demo desktops and the server on http://localhost:8000 (PORT= to change)"
	@echo "make test     all tests"
	@echo "make lint     all linters"
	@echo "make mutation change the code of lease, gate and parser: which change do the tests not notice?"
	@echo "make bench    measure beside websockify, noVNC's page and a C relay; writes docs/benchmarks.md"
	@echo "make soak     550 displays for 15 minutes (MINUTES= to change): what ends or grows? Writes docs/soak.md"
	@echo "make chaos    break everything, three times each; writes docs/reliability.md"
	@echo "make newcomer do what docs/deploy.md says, from nothing to the first takeover, on a machine that is only pretended"
	@echo "make clean-machine do what README.md says under “Try it” on a Debian with nothing on it"
	@echo "make install  a production server: virtualenv, noVNC, collected static files"

setup:
	@scripts/setup test

run:
	@scripts/setup run
	@exec setpriv --pdeathsig TERM -- .venv/bin/python scripts/run_demo.py

test: setup
	node --test $(wildcard tests/js/*.test.js)
ifdef ARGS
	$(PYTHON_TOOL) pytest $(ARGS)
else
	$(PYTHON_TOOL) pytest --database sqlite -n 2 $(ON_BOTH_DATABASES)
	$(PYTHON_TOOL) pytest -n 5 --dist loadfile --no-loadscope-reorder tests/unit tests/integration tests/chaos \
		tests/newcomer
	$(PYTHON_TOOL) pytest -n 4 --dist load --maxschedchunk 1 tests/e2e
endif

lint: setup
	$(PYTHON_TOOL) ruff check
	$(PYTHON_TOOL) ruff format --check
	$(PYTHON_TOOL) mypy
	$(PYTHON_TOOL) vulture
	npx eslint .
	npx tsc -p tsconfig.json
	shellcheck $(SHELL_SCRIPTS)
	scripts/check_tree

# What is not done after MINUTES= is done by the next call: what has been killed stays so.
mutation: setup
	@exec setpriv --pdeathsig TERM -- timeout --signal INT $(or $(MINUTES),60)m $(PYTHON_TOOL) tests.mutation $(ARGS)

bench: setup
	@exec setpriv --pdeathsig TERM -- $(PYTHON_TOOL) bench $(ARGS)

soak: setup
	@exec setpriv --pdeathsig TERM -- $(PYTHON_TOOL) bench.soak $(MINUTES:%=--minutes %) $(ARGS)

chaos: setup
	CHAOS_ROUNDS=3 CHAOS_REPORT=docs/reliability.md $(PYTHON_TOOL) pytest tests/chaos $(ARGS)

# Downloads what the document says; `make test` walks the same path without. Ports 80, 443, 5432, 5901, 6379,
# 8000 and 8001 have to be free, for it has the network of this machine.
newcomer: setup
	NEWCOMER=from-nothing $(PYTHON_TOOL) pytest tests/newcomer $(ARGS)

# Debian and all else is downloaded. ARGS= is handed to its `make test`, without which all tests are run there, too.
clean-machine: setup
	@exec setpriv --pdeathsig TERM -- $(PYTHON_TOOL) tests.newcomer.clean $(ARGS)

# The page in each of its states, then, with `make run` going on in another terminal, the rest.
screenshots: setup
	$(PYTHON_TOOL) pytest -n 2 tests/e2e/picture_states.py $(ARGS)
	.venv/bin/python scripts/take_screenshots.py --url http://localhost:$(or $(PORT),8000)

install:
	@scripts/setup install
