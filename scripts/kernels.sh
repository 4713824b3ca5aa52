#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Fetches what test/kernels boots: Debian's kernels for clouds, which boot in seconds, and a static busybox for each
# architecture. They go to $KEYHOLE_KERNELS, by default ~/.cache/keyhole/kernels:
#
#     amd64/busybox amd64/6.12/vmlinuz amd64/6.12/package ...
#
# Does nothing, quickly, where all is there; `scripts/kernels.sh --newest` looks for newer ones of the same series. Packages are
# checked with the keys of debian-archive-keyring, and come from where this machine gets its own. Its apt is not touched.
set -euo pipefail

fail() {
	echo "kernels: $1" >&2
	exit 1
}

cache=${KEYHOLE_KERNELS:-${XDG_CACHE_HOME:-$HOME/.cache}/keyhole/kernels}

# Series, architecture, the pattern of the package's name (an extended regular expression).
kernels=(
	'5.10 amd64 linux-image-5\.10\.0-[0-9]+-cloud-amd64'
	'6.1 amd64 linux-image-6\.1\.0-[0-9]+-cloud-amd64'
	'6.1 arm64 linux-image-6\.1\.0-[0-9]+-cloud-arm64'
	'6.12 amd64 linux-image-6\.12\.[0-9+a-z.~-]+-cloud-amd64'
	'6.12 arm64 linux-image-6\.12\.[0-9+a-z.~-]+-cloud-arm64'
	'7.3 amd64 linux-binary-7\.3\.[0-9+a-z.~-]+-cloud-amd64'
	'7.3 arm64 linux-binary-7\.3\.[0-9+a-z.~-]+-cloud-arm64'
)
architectures=(amd64 arm64)

complete() {
	local series arch
	for a in "${architectures[@]}"; do
		[[ -x $cache/$a/busybox ]] || return 1
	done
	for k in "${kernels[@]}"; do
		read -r series arch _ <<<"$k"
		[[ -s $cache/$arch/$series/package ]] || return 1 # written last
	done
}

if [[ ${1:-} != --newest ]] && complete; then
	exit 0
fi

for tool in apt-get dpkg-deb; do
	command -v "$tool" >/dev/null || fail "needs $tool: the kernels are Debian's"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[[ -r $keyring ]] || fail "needs $keyring: install debian-archive-keyring"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,archives/partial,parts,download}

# Where this machine gets Debian's packages and its security updates.
archive='' security=''
# shellcheck disable=SC2016 # the names are apt's
while read -r uri suite; do
	case $suite in
	*-security | */updates) security=$uri ;;
	*) archive=$uri ;;
	esac
done < <(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(ORIGIN)' 'Created-By: Packages' | awk '/debian/ { print $1, $2 }' | sort -u)
[[ -n $archive && -n $security ]] || fail "this machine's apt sources name no Debian archive with its security updates"

for source in "$archive bookworm" "$archive trixie-backports" "$security bullseye-security" "$security bookworm-security"; do
	echo "deb [arch=amd64,arm64 signed-by=$keyring] $source main"
done >"$work/sources.list"
apt=(
	-o "Dir::State::Lists=$work/lists" -o "Dir::State::Status=/dev/null" -o "Dir::Cache::Archives=$work/archives"
	-o "Dir::Cache::PkgCache=" -o "Dir::Cache::SrcPkgCache=" -o "Dir::Etc::SourceList=$work/sources.list"
	-o "Dir::Etc::SourceParts=$work/parts" -o "APT::Architectures=amd64,arm64" -o "Acquire::Languages=none" -o "APT::Sandbox::User="
)
apt-get "${apt[@]}" -qq update || fail "cannot read the lists of Debian's packages"

# newest PATTERN ARCHITECTURE: the newest package whose whole name matches.
newest() {
	apt-cache "${apt[@]}" -o "APT::Architecture=$2" pkgnames linux- | { grep -Ex "$1" || true; } | sort -uV | tail -n 1
}

# unpack PACKAGE ARCHITECTURE: into $work/root.
unpack() {
	rm -rf "$work/root" "$work"/download/*
	(cd "$work/download" && apt-get "${apt[@]}" -o "APT::Architecture=$2" -qq download "$1:$2") || fail "cannot fetch $1 for $2"
	dpkg-deb --extract "$work"/download/*.deb "$work/root"
}

for a in "${architectures[@]}"; do
	mkdir -p "$cache/$a"
	[[ -x $cache/$a/busybox ]] && continue
	unpack busybox-static "$a"
	install -m 755 "$work/root/bin/busybox" "$cache/$a/busybox"
done
for k in "${kernels[@]}"; do
	read -r series arch pattern <<<"$k"
	dir=$cache/$arch/$series
	[[ ${1:-} != --newest && -s $dir/package ]] && continue
	package=$(newest "$pattern" "$arch")
	[[ -n $package ]] || fail "no package of Linux $series for $arch is called like $pattern any more: look for its new name"
	[[ $(cat "$dir/package" 2>/dev/null) == "$package" ]] && continue
	echo "kernels: fetch $package"
	unpack "$package" "$arch"
	image=$(find "$work/root" -name 'vmlinuz*' -type f -print -quit)
	[[ -n $image ]] || fail "$package holds no kernel"
	mkdir -p "$dir"
	install -m 644 "$image" "$dir/vmlinuz"
	echo "$package" >"$dir/package"
done
