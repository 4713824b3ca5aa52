#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The main job on one machine: trace a running service that nobody prepared, with redaction, watch the probe end by itself,
# and check what was promised. Cleans up after itself; any check that fails is the script's exit status.
set -euo pipefail
cd "$(dirname "$0")/.."

need() {
	echo "demo: $1" >&2
	exit 1
}

[[ $(uname -s) == Linux ]] || need "needs Linux 6.6 or later: 'vagrant up' makes one"
IFS=. read -r major minor _ < <(uname -r)
((major > 6 || (major == 6 && ${minor%%[!0-9]*} >= 6))) || need "needs Linux 6.6 or later; this is $(uname -r)"
((EUID == 0)) || need "needs root, to load eBPF programs: sudo make demo"
command -v go >/dev/null || need "needs Go: https://go.dev/dl/ (under sudo: sudo env PATH=\"\$PATH\" make demo)"

work=$(mktemp -d)
declare -A pids=() # what was started, by name; ended by process number

finish() {
	local status=$?
	trap - EXIT
	for name in load keyhole shop sink; do
		if [[ -n ${pids[$name]:-} ]]; then
			kill "${pids[$name]}" 2>/dev/null || true
			wait "${pids[$name]}" 2>/dev/null || true
		fi
	done
	if ((status != 0)); then
		echo "demo: failed; the last lines of keyhole dev:" >&2
		tail -n 20 "$work/keyhole.err" >&2 || true
	fi
	rm -rf "$work"
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }

# show COMMAND...: prints a command as one would type it, and runs it.
show() {
	local word
	printf '$'
	for word in "$@"; do
		[[ $word == *[\ \>\<\"]* ]] && word="'$word'"
		printf ' %s' "$word"
	done
	printf '\n'
	"$@"
}

# await FILE: waits for the line "ready ..." in it and prints what follows "ready".
await() {
	for _ in {1..300}; do
		if grep -q '^ready ' "$1"; then
			sed -n 's/^ready //p' "$1" | head -n 1
			return
		fi
		sleep 0.1
	done
	echo "demo: no 'ready' in $1 within 30 s" >&2
	return 1
}

# text PID: a digest of all executable mappings of a process that are backed by files, read as the process sees them.
text() {
	local range permissions path from to
	while read -r range permissions _ _ _ path; do
		[[ $permissions == *x* && $path == /* ]] || continue
		from=$((16#${range%-*})) to=$((16#${range#*-}))
		dd if="/proc/$1/mem" iflag=skip_bytes,count_bytes skip="$from" count=$((to - from)) bs=1M status=none
	done <"/proc/$1/maps" | sha256sum | cut -d' ' -f1
}

say "Build the commands, a checkout service, a load generator and a receiver of OpenTelemetry data"
CGO_ENABLED=0 go build -trimpath -o "$work/bin/" ./cmd/... ./test/targets/shop ./test/targets/shop/load ./test/otlpsink
PATH=$work/bin:$PATH

say "Start them: the receiver, the service under load, and Keyhole's control plane and agent"
otlpsink >"$work/spans" 2>"$work/sink.err" &
pids[sink]=$!
sink=$(await "$work/spans")
shop >"$work/shop" 2>&1 &
pids[shop]=$!
shop=$(await "$work/shop")
load -address "$shop" -requests 100000 -rate 40 >"$work/load" 2>&1 &
pids[load]=$!
cat >"$work/rules.yaml" <<'RULES'
version: 1
rules:
  - {id: payments/card, name: card, action: "suffix:4"}   # the shipped rules would drop it
  - {id: customers/email, name: email, action: "prefix:3"}
RULES
OTEL_TRACES_EXPORTER=otlp OTEL_LOGS_EXPORTER=otlp OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf OTEL_EXPORTER_OTLP_ENDPOINT=$sink \
	OTEL_BSP_SCHEDULE_DELAY=500 \
	keyhole dev --dir "$work/dev" --listen 127.0.0.1:0 --redaction "$work/rules.yaml" >"$work/keyhole" 2>"$work/keyhole.err" &
pids[keyhole]=$!
await "$work/keyhole" >/dev/null
export KEYHOLE_CONFIG=$work/dev/client.yaml KEYHOLE_REASON="demo: what do checkouts look like?"
before=$(text "${pids[shop]}")
echo "the shop is process ${pids[shop]}, its text is sha256:${before:0:16}…"

capture=("pid/${pids[shop]}" Cart.Checkout --arg user.Email --arg user.Password --arg card --arg qty --arg total)

say "What would be read, and what leaves the kernel as what: attaches nothing"
show keyhole explain "${capture[@]}"
[[ $(text "${pids[shop]}") == "$before" ]] || need "explain changed the process's text"

say "Trace it for 8 seconds, 4 events a second"
(
	sleep 4
	if [[ $(text "${pids[shop]}") != "$before" ]]; then touch "$work/probed"; fi
) &
pids[watch]=$!
show keyhole trace "${capture[@]}" --where 'qty > 3' --rate 4/s --for 8s
wait "${pids[watch]}"

say "The deadline has passed"
[[ -e $work/probed ]] || need "the process's text did not change while the probe was on: nothing was traced"
[[ $(text "${pids[shop]}") == "$before" ]] || need "the process's text is not what it was before"
echo "text restored: sha256:${before:0:16}… is what it was before the probe"

say "What the OpenTelemetry receiver got"
sleep 2
spans=$(grep -c '^span ' "$work/spans") || need "the receiver got no spans"
# The arguments alone: a span also says session, process, thread, goroutine and policy.
grep '^span ' "$work/spans" | tail -n 5 | sed -E 's/ (code|process|thread|keyhole\.(attach_point|session|probe|policy|goroutine))\.?[a-z._]*="[^"]*"//g'
echo "$spans spans, $(grep -c '^log ' "$work/spans" || true) copies of audit records"
! grep -qE '4242424242424242|pw-[a-z]' "$work/spans" || need "a card number or a password left the kernel"

say "The audit log, checked against its signed checkpoint"
show keyhole audit ls
show keyhole audit verify
