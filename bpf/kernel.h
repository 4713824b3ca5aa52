/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the program uses of the kernel, all of it: the helpers that it may call, the fields that it reads, the
 * registers that it is given. Declared here instead of included, so that the list is short enough to review and the
 * object depends on no header of the machine that built it.
 */
#ifndef KH_KERNEL_H
#define KH_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed int __s32;
typedef signed long long __s64;

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __unused __attribute__((unused))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
#define __unroll_not _Pragma("clang loop unroll(disable)")
/* Keeps clang from computing with another copy of a variable than the one that was compared with a bound. */
#define kh_opaque(variable) __asm__ volatile("" : "+r"(variable))

/* Helpers, by their numbers in the kernel's ABI (include/uapi/linux/bpf.h). */
static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static __u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static long (*const bpf_probe_read_user)(void *to, __u32 size, const void *from) = (void *)112;
static long (*const bpf_probe_read_user_str)(void *to, __u32 size, const void *from) = (void *)114;
static __u64 (*const bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*const bpf_ringbuf_output)(void *ring, void *data, __u64 size, __u64 flags) = (void *)130;
static __u64 (*const bpf_ringbuf_query)(void *ring, __u64 flags) = (void *)134;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;
static __u64 (*const bpf_get_attach_cookie)(void *ctx) = (void *)174;
static long (*const bpf_loop)(__u32 turns, void *callback, void *callback_ctx, __u64 flags) = (void *)181;

enum {
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_RINGBUF = 27,

	BPF_F_WRONLY = 1 << 4,	    /* user space may only write */
	BPF_F_RDONLY_PROG = 1 << 7, /* the program may only read */

	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,

	BPF_RB_AVAIL_DATA = 0,
	BPF_RB_PROD_POS = 3,
};

/* Offsets are relocated to the running kernel's by its BTF (CO-RE). */
struct task_struct {
	__s32 pid;
	__s32 tgid;
	struct task_struct *group_leader;
	__u64 start_boottime; /* before 5.5 real_start_time */
	char comm[16];
} __attribute__((preserve_access_index));

/* Registers as the kernel hands them to the program: ABI (asm/ptrace.h). */
#if defined(__TARGET_ARCH_x86)

struct pt_regs {
	__u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

enum { KH_REGISTERS = 17 };

/*
 * All of them, in DWARF's order (System V ABI AMD64, figure 3.36), before any is picked: a switch makes clang compute
 * an address from the context's, and the verifier refuses a "dereference of modified ctx ptr".
 */
static __always_inline void kh_copy_registers(__u64 *to, const struct pt_regs *from)
{
	to[0] = from->ax;
	to[1] = from->dx;
	to[2] = from->cx;
	to[3] = from->bx;
	to[4] = from->si;
	to[5] = from->di;
	to[6] = from->bp;
	to[7] = from->sp;
	to[8] = from->r8;
	to[9] = from->r9;
	to[10] = from->r10;
	to[11] = from->r11;
	to[12] = from->r12;
	to[13] = from->r13;
	to[14] = from->r14;
	to[15] = from->r15;
	to[16] = from->ip;
}

/* Where a register, by its DWARF number, is in the copy. KH_REGISTERS: nowhere. */
static __always_inline __u32 kh_register(__u8 number)
{
	return number < KH_REGISTERS ? number : KH_REGISTERS;
}

#elif defined(__TARGET_ARCH_arm64)

struct pt_regs { /* struct user_pt_regs */
	__u64 regs[31], sp, pc, pstate;
};

/* The stack has no room for x16 to x25, where no argument is at a function's entry (AAPCS64 6.1.1, Go's ABIInternal). */
enum { KH_REGISTERS = 22, KH_FIRST_LEFT_OUT = 16, KH_LEFT_OUT = 10 };

static __always_inline void kh_copy_registers(__u64 *to, const struct pt_regs *from)
{
#pragma clang loop unroll(full)
	for (int i = 0; i < KH_FIRST_LEFT_OUT; i++)
		to[i] = from->regs[i];
#pragma clang loop unroll(full)
	for (int i = KH_FIRST_LEFT_OUT; i < KH_REGISTERS - 1; i++)
		to[i] = from->regs[i + KH_LEFT_OUT];
	to[KH_REGISTERS - 1] = from->sp;
}

static __always_inline __u32 kh_register(__u8 number)
{
	if (number < KH_FIRST_LEFT_OUT)
		return number;
	return number >= KH_FIRST_LEFT_OUT + KH_LEFT_OUT && number < KH_REGISTERS + KH_LEFT_OUT ? number - KH_LEFT_OUT :
												  KH_REGISTERS;
}

#else
#error "no register table for this architecture"
#endif

#endif
