#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what generating, testing and measuring need, on Debian, from a bare machine. Does nothing, quickly, where
# all is there. Building and `make demo` need only Go.
set -euo pipefail

# clang-19 llvm-19 libbpf-dev: eBPF objects. gcc make git: C test targets, cgo of the race detector, the checks.
# qemu-system-*, gcc-aarch64-linux-gnu, libc6-dev-arm64-cross: the kernels that test/kernels boots and what runs there.
# bpftrace: what `make bench` compares with. shellcheck, vagrant with a provider: lint.
packages=(clang-19 llvm-19 libbpf-dev gcc libc6-dev make git bpftrace shellcheck vagrant vagrant-libvirt
	qemu-system-x86 qemu-system-arm gcc-aarch64-linux-gnu libc6-dev-arm64-cross debian-archive-keyring)

missing=()
for p in "${packages[@]}"; do
	if ! dpkg-query --show --showformat='${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed; then
		missing+=("$p")
	fi
done
if ((${#missing[@]} > 0)); then
	if ((EUID != 0)); then
		echo "setup: needs root to install: ${missing[*]}" >&2
		exit 1
	fi
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
fi

if ! command -v go >/dev/null; then
	echo "setup: Go is missing: install it from https://go.dev/dl/ or your distribution" >&2
	exit 1
fi
scripts/kernels.sh
go mod download
go mod download -modfile=tools/go.mod
