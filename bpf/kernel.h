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
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static long (*const bpf_tail_call)(void *ctx, void *programs, __u32 index) = (void *)12;
static long (*const bpf_probe_read_user)(void *to, __u32 size, const void *from) = (void *)112;
static long (*const bpf_probe_read_user_str)(void *to, __u32 size, const void *from) = (void *)114;
static long (*const bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
static long (*const bpf_probe_read_kernel_str)(void *to, __u32 size, const void *from) = (void *)115;
static __u64 (*const bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*const bpf_ringbuf_output)(void *ring, void *data, __u64 size, __u64 flags) = (void *)130;
static __u64 (*const bpf_ringbuf_query)(void *ring, __u64 flags) = (void *)134;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;
static __u64 (*const bpf_get_attach_cookie)(void *ctx) = (void *)174;
static long (*const bpf_loop)(__u32 times, void *body, void *context, __u64 flags) = (void *)181;

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_RINGBUF = 27,

	BPF_NOEXIST = 1,

	BPF_F_NO_PREALLOC = 1 << 0,
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
	struct task_struct *real_parent;
	__u64 start_boottime; /* before 5.5 real_start_time */
	char comm[16];
} __attribute__((preserve_access_index));

/*
 * Reads what the context has at an offset that is in the instruction. Of a plain switch over offsets clang makes an address that it
 * computes from the context's, and the verifier refuses a "dereference of modified ctx ptr".
 */
#define kh_context(ctx, field, to)                                                                                             \
	({                                                                                                                     \
		__asm__ volatile("%0 = *(u64 *)(%1 + %2)"                                                                      \
				 : "=r"(*(to))                                                                                 \
				 : "r"(ctx), "i"(__builtin_offsetof(struct pt_regs, field)));                                  \
		true;                                                                                                          \
	})

/* Registers as the kernel hands them to the program: ABI (asm/ptrace.h). */
#if defined(__TARGET_ARCH_x86)

struct pt_regs {
	__u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

enum { KH_RETURN_ADDRESS = 8 /* bytes that a call pushes */ };
enum { KH_BELOW_STACK = 0 /* no frame is there that its function still has */ };

static __always_inline __u64 kh_stack(const struct pt_regs *r)
{
	return r->sp;
}

/* Go's running goroutine, in functions of ABIInternal. */
static __always_inline __u64 kh_g(const struct pt_regs *r)
{
	return r->r14;
}

static __always_inline __u64 kh_frame_pointer(const struct pt_regs *r)
{
	return r->bp;
}

/* Where a function returns to that has no frame of its own yet, or none any more. */
static __always_inline bool kh_return_address(const struct pt_regs *r, __u64 *to)
{
	return !bpf_probe_read_user(to, sizeof(*to), (const void *)r->sp);
}

static __always_inline __u64 kh_code_address(__u64 address)
{
	return address;
}

/* A register by its DWARF number (System V ABI AMD64, figure 3.36). False: there is none. */
static __always_inline bool kh_register(const struct pt_regs *ctx, __u8 number, __u64 *to)
{
	switch (number) {
	case 0:
		return kh_context(ctx, ax, to);
	case 1:
		return kh_context(ctx, dx, to);
	case 2:
		return kh_context(ctx, cx, to);
	case 3:
		return kh_context(ctx, bx, to);
	case 4:
		return kh_context(ctx, si, to);
	case 5:
		return kh_context(ctx, di, to);
	case 6:
		return kh_context(ctx, bp, to);
	case 7:
		return kh_context(ctx, sp, to);
	case 8:
		return kh_context(ctx, r8, to);
	case 9:
		return kh_context(ctx, r9, to);
	case 10:
		return kh_context(ctx, r10, to);
	case 11:
		return kh_context(ctx, r11, to);
	case 12:
		return kh_context(ctx, r12, to);
	case 13:
		return kh_context(ctx, r13, to);
	case 14:
		return kh_context(ctx, r14, to);
	case 15:
		return kh_context(ctx, r15, to);
	case 16:
		return kh_context(ctx, ip, to);
	}
	return false;
}

#elif defined(__TARGET_ARCH_arm64)

struct pt_regs { /* struct user_pt_regs */
	__u64 regs[31], sp, pc, pstate;
};

enum { KH_G = 28, KH_RETURN_ADDRESS = 0 };
/* A function of Go's keeps its caller's frame pointer right below its own stack pointer (src/cmd/internal/obj/arm64/obj7.go). */
enum { KH_BELOW_STACK = 8 };

static __always_inline __u64 kh_stack(const struct pt_regs *r)
{
	return r->sp;
}

/* Go's running goroutine, in functions of ABIInternal. */
static __always_inline __u64 kh_g(const struct pt_regs *r)
{
	return r->regs[KH_G];
}

static __always_inline __u64 kh_frame_pointer(const struct pt_regs *r)
{
	return r->regs[29];
}

/* Where a function returns to that has no frame of its own yet, or none any more. */
static __always_inline bool kh_return_address(const struct pt_regs *r, __u64 *to)
{
	*to = r->regs[30];
	return true;
}

/* Without the signature that pointer authentication puts into its upper bits. */
static __always_inline __u64 kh_code_address(__u64 address)
{
	return address & ((1ULL << 48) - 1);
}

/*
 * A register by its DWARF number (DWARF for AArch64, 4.1): x0 to x15, Go's running goroutine, the stack pointer. No argument is
 * elsewhere at a function's entry, nor a result at its return (AAPCS64 6.8.2, Go's ABIInternal). False: there is none.
 */
static __always_inline bool kh_register(const struct pt_regs *ctx, __u8 number, __u64 *to)
{
	switch (number) {
	case 0:
		return kh_context(ctx, regs[0], to);
	case 1:
		return kh_context(ctx, regs[1], to);
	case 2:
		return kh_context(ctx, regs[2], to);
	case 3:
		return kh_context(ctx, regs[3], to);
	case 4:
		return kh_context(ctx, regs[4], to);
	case 5:
		return kh_context(ctx, regs[5], to);
	case 6:
		return kh_context(ctx, regs[6], to);
	case 7:
		return kh_context(ctx, regs[7], to);
	case 8:
		return kh_context(ctx, regs[8], to);
	case 9:
		return kh_context(ctx, regs[9], to);
	case 10:
		return kh_context(ctx, regs[10], to);
	case 11:
		return kh_context(ctx, regs[11], to);
	case 12:
		return kh_context(ctx, regs[12], to);
	case 13:
		return kh_context(ctx, regs[13], to);
	case 14:
		return kh_context(ctx, regs[14], to);
	case 15:
		return kh_context(ctx, regs[15], to);
	case 28:
		return kh_context(ctx, regs[28], to);
	case 31:
		return kh_context(ctx, sp, to);
	}
	return false;
}

#else
#error "no register table for this architecture"
#endif

#endif
