# Everything a developer and CI do. The first call installs what is needed (git, make and
# Python >= 3.11 suffice); later calls cost nothing until uv.lock or pyproject.toml changes.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: run test check fmt bench sweep clean help
MAKEFLAGS += --no-print-directory

export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV
# Where the machine keeps certificates, uv trusts them as pip does: some networks have an
# authority of their own.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt),)
export UV_SYSTEM_CERTS ?= true
endif

# Tests wait more than they compute: three keep two cores busy.
WORKERS := 3
UV_RUN := .tools/bin/uv run --no-sync
PYTEST := $(UV_RUN) pytest --no-header
INPUTS := uv.lock pyproject.toml scripts/setup scripts/uv.txt
RUN_READY := .venv/.run-ready
DEV_READY := .venv/.dev-ready
BENCHMARKS := $(wildcard benchmarks/__main__.py)

# $(call step,name,command): the name and "ok"; everything the command said when it failed.
define step
@printf '  %-14s ' '$(1)'; \
if out=$$($(2) 2>&1); then echo ok; else \
	status=$$?; echo FAILED; printf '%s\n' "$$out" '' 'Again: $(2)'; exit $$status; fi
endef

help:  ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) \
	$(if $(BENCHMARKS),,| grep -v 'make bench') | while IFS='|' read -r name text; do \
		printf '%-14s %s\n' "$$name" "$$text"; done

run: $(RUN_READY)  ## Start the service (settings: .env.example)
	@$(UV_RUN) myscheduler serve

test: $(DEV_READY)  ## All tests but the sweeps, with the coverage gate
	@$(PYTEST) -n $(WORKERS) --dist worksteal -m 'not sweep' --cov --cov-report=term

check: $(DEV_READY)  ## Format, lint, types, imports, manifests, migrations, quick tests
	$(call step,format,$(UV_RUN) ruff format --check .)
	$(call step,lint,$(UV_RUN) ruff check .)
	$(call step,types,$(UV_RUN) mypy)
	$(call step,imports,$(UV_RUN) lint-imports)
	$(call step,dependencies,$(UV_RUN) deptry .)
	$(call step,Dockerfile,$(UV_RUN) hadolint Dockerfile)
	$(call step,migrations,$(UV_RUN) python -m app.db.migrations check)
	@echo '  quick tests    (Kubernetes manifests among them)'
	@$(PYTEST) -q -n $(WORKERS) -m 'not slow and not sweep' tests/unit tests/architecture tests/property

fmt: $(DEV_READY)  ## Format, and mend what the linter can mend
	@$(UV_RUN) ruff check --fix-only --quiet .
	@$(UV_RUN) ruff format .

bench: $(DEV_READY)  ## Measure the service: a short suite, one table (minutes)
	@$(UV_RUN) python -m benchmarks

sweep: $(DEV_READY)  ## The exhaustive proofs; takes minutes
	@$(PYTEST) -n $(WORKERS) -m sweep --timeout=1800

clean:  ## Remove what the targets made; data/ stays
	@rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
		.coverage .coverage.* htmlcov dist
	@find app tests scripts $(if $(BENCHMARKS),benchmarks) -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN_READY): $(INPUTS)
	@scripts/setup run
	@touch $@

$(DEV_READY): $(INPUTS)
	@scripts/setup dev
	@touch $(RUN_READY) $@
