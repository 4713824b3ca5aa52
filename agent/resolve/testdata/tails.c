/* SPDX-License-Identifier: Apache-2.0 */
/* A function that ends in a call of another, in a program that does, or not, what the kernel's return probe would make dangerous. */
#define _GNU_SOURCE
#include <stdio.h>
#if defined(CONTEXTS)
#include <ucontext.h>
#elif defined(SIGNALS)
#include <signal.h>
#elif defined(THREADS)
#include <pthread.h>
#elif defined(CALLS)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(LOADS) || defined(LOOKS)
#include <dlfcn.h>
#endif
#include <sys/mman.h>

__attribute__((noinline, noclone)) long last(long n)
{
	__asm__ volatile("" ::: "memory");
	return n + 1;
}

__attribute__((noinline, noclone)) long tail(long n)
{
	return last(2 * n);
}

#if defined(UNKNOWN)
/* Something that is no instruction stands in its code. */
__attribute__((noinline, noclone)) long unknown(long n)
{
	__asm__ volatile("jmp 1f\n\t.byte 0x0f, 0x04\n1:" ::: "memory");
	return n + 1;
}
#elif defined(CLEANS)
static void clean(long *n) { *n += last(*n); }

__attribute__((noinline, noclone)) long cleans(long n)
{
	long kept __attribute__((cleanup(clean))) = n;

	return last(kept) + getchar();
}
#elif defined(SWITCHES)
/* As coroutines written in assembly go on. */
__asm__(".globl switches\n.type switches, @function\nswitches:\n\tmovq %rsp, (%rdi)\n\tmovq (%rsi), %rsp\n\tret\n.size switches, .-switches\n");
void switches(void **from, void **to);
#endif

int main(int argc, char **argv)
{
	(void)argv;
	if (argc > 99) {
#if defined(CONTEXTS)
		ucontext_t c;

		setcontext(&c);
#elif defined(SIGNALS)
		sigaltstack(0, 0);
#elif defined(THREADS)
		pthread_exit(0);
#elif defined(CALLS)
		syscall(SYS_sigaltstack, 0, 0);
#elif defined(CALLS_ITSELF)
		__asm__ volatile("syscall" : : "a"(131), "D"(0), "S"(0) : "rcx", "r11", "memory"); /* sigaltstack */
#elif defined(LOOKS)
		dlsym(RTLD_NEXT, "puts");
#elif defined(LOADS)
		dlopen("libm.so.6", RTLD_NOW);
#elif defined(UNKNOWN)
		unknown(argc);
#elif defined(CLEANS)
		cleans(argc);
#elif defined(SWITCHES)
		void *from, *to = 0;

		switches(&from, &to);
#endif
	}
#if defined(MAKES)
	mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#endif
	puts("ready");
	fflush(stdout);
	getchar();
	return (int)tail(argc) & 0;
}
