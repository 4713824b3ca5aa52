#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What needs no kernel: format, vet, linters, the protocol's style, shell scripts, the Vagrantfile.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(git ls-files -z '*.go' | xargs -0 gofmt -l)
if [[ -n $unformatted ]]; then
	printf 'lint: run gofmt -w on:\n%s\n' "$unformatted" >&2
	exit 1
fi
go vet ./...
go tool -modfile=tools/go.mod golangci-lint run --allow-parallel-runners ./...
scripts/proto.sh lint
# scripts/setup.sh installs the next two; without them the rest is still worth a run.
if command -v shellcheck >/dev/null; then
	git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck
fi
if command -v vagrant >/dev/null; then
	VAGRANT_HOME=$(mktemp -d) vagrant validate
fi
