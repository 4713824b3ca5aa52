# SPDX-License-Identifier: Apache-2.0
# The commands of this repository. `make demo` and `make test` need root and Linux 6.6 or later; nothing else does.

GO   ?= go
TOOL  = $(GO) tool -modfile=tools/go.mod

.PHONY: demo test test-kernel test-soak test-long test-exploration bench build generate lint

demo: ## trace a running program with redaction, end to end, and clean up
	@scripts/demo.sh

test: ## every test, race detector on but for what only computes; packages one after another, since several count what the whole kernel holds
	$(GO) build -race ./...
	$(TOOL) gotestsum --format pkgname-and-test-fails -- -race -p 1 -timeout 20m ./...
	$(TOOL) gotestsum --format pkgname-and-test-fails -- -count=1 -p 1 -timeout 15m -run '^Test(NoRedactedByteLeavesTheKernel|Canaries|Mutants)$$' ./test/e2e ./agent/privsep ./bpf
	@cat bin/kernels.txt 2>/dev/null || true # what ran on which kernel, if any were there

test-kernel: ## the tests on kernels in an emulator, or some of them: make test-kernel KERNEL=6.12 ARCH=arm64 RUN=TestShapes
	$(GO) test -count=1 -timeout 20m -v -run '^TestMatrix$$' ./test/kernels -kernel '$(KERNEL)' -arch '$(ARCH)' -guest-run '$(RUN)'

test-soak: ## eight processes under signals, ten minutes: no event holds another's byte
	KEYHOLE_SOAK=10m $(GO) test -count=1 -timeout 20m -v -run '^TestCrossProcess$$' ./agent/loader

test-long: ## the long forms of those tests that have one: hours
	KEYHOLE_LONG=1 $(TOOL) gotestsum --format pkgname-and-test-fails -- -p 1 -count=1 -timeout 6h ./...

test-exploration: ## probes on every function of programs that are not ours, whose own tests must not notice
	KEYHOLE_EXPLORE=all $(GO) test -count=1 -timeout 120m -v -run '^TestExploration$$' ./test/returns

bench: ## one table, from one run
	$(GO) test -count=1 -timeout 30m -v -run '^TestTable$$' ./test/bench -full

build: ## the commands, into bin/: without cgo, since a C library in each of the agent's processes costs 12 MiB of resident memory
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/...

generate: ## everything that is generated and committed
	$(GO) generate ./...

lint: ## what .ci/run checks before it tests
	@scripts/lint.sh
