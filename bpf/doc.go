// SPDX-License-Identifier: Apache-2.0

// Package bpf holds the programs that run in the kernel, one for processes and one for the kernel itself, as objects built
// ahead of time, and the Go mirror of every struct and constant that they share with this side. The C files here are the
// only C of the project.
package bpf

//go:generate go tool -modfile=../tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type kh_op -type kh_record -type kh_value -type kh_config -type kh_outcomes -type kh_deadline -type kh_usage -type kh_limit -type kh_op_code -type kh_action -type kh_compare -type kh_reason -type kh_count -type kh_pair -type kh_aggregate -type kh_group -type kh_buckets -type kh_machine -type kh_tables -type kh_detection -type kh_value_flag -no-global-types Uprobe uprobe.bpf.c -- -std=gnu23 -O2 -mcpu=v3 -Wall -Wextra -Werror
//go:generate go tool -modfile=../tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types Kprobe kprobe.bpf.c -- -std=gnu23 -O2 -mcpu=v3 -Wall -Wextra -Werror
//go:generate sh -c "sha256sum kprobe_arm64_bpfel.o kprobe_x86_bpfel.o uprobe_arm64_bpfel.o uprobe_x86_bpfel.o > manifest.txt"
