#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# `scripts/proto.sh generate` writes the Go beside the protos, `scripts/proto.sh lint` checks their style.
set -euo pipefail
cd "$(dirname "$0")/.."

image=$(mktemp --suffix=.binpb)
trap 'rm -f "$image"' EXIT
go run -C tools ./protoimage ../proto >"$image"
# Only what is ours: the image also holds what our protos import.
go tool -modfile=tools/go.mod buf "$1" "$image" --path keyhole/v1
