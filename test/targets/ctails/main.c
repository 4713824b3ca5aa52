/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions that end in calls of others, as compilers make of a call at the end: in several threads, recursively, left by longjmp, from a
 * signal handler, across a fork and under a filter of system calls. For each command it says how many calls began and how many
 * returned, and what was wrong with them.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 4, CALLS = 500, DEPTH = 6 };

static atomic_long began, returned, wrong;
static _Thread_local volatile long handled;

__attribute__((noinline)) static long finish(long id, long depth)
{
	returned++;
	return id * 100 + depth;
}

__attribute__((noinline, noclone)) long step(long depth, long id, jmp_buf away)
{
	began++;
	if (depth > 0) {
		if (step(depth - 1, id, away) != id * 100 + depth - 1)
			wrong++;
	} else if (id % 5 == 4) {
		longjmp(away, 1);
	} else if (id % 7 == 3) {
		raise(SIGUSR1);
	} else if (id % 250 == 0) {
		pid_t child = fork();
		int status = 0;

		if (!child) /* it goes on from here, and says below whether it came through */
			handled = -1;
		else if (waitpid(child, &status, 0) != child || status)
			wrong++;
	}
	return finish(id, depth);
}

static void handler(int number)
{
	jmp_buf nowhere;

	(void)number;
	if (step(1, 999998, nowhere) != 99999801)
		wrong++;
	handled++;
}

long odd(long n, long id);

__attribute__((noinline, noclone)) long even(long n, long id)
{
	began++;
	if (n == 0)
		return finish(id, n);
	return odd(n - 1, id);
}

__attribute__((noinline, noclone)) long odd(long n, long id)
{
	if (n == 0)
		return -1;
	return even(n - 1, id);
}

__attribute__((noinline, noclone)) int tell(char *to, long id)
{
	began++;
	return snprintf(to, 64, "id %ld, %g", id, 0.5);
}

static atomic_long held;

__attribute__((noinline)) static long wait_here(long id)
{
	began++;
	while (held)
		usleep(1000);
	return finish(id, 0);
}

__attribute__((noinline, noclone)) long hold(long id)
{
	return wait_here(id);
}

static void steps(long id)
{
	jmp_buf away;

	if (!setjmp(away) && step(DEPTH, id, away) != id * 100 + DEPTH)
		wrong++;
	if (handled < 0) /* the child of the fork */
		_exit(wrong ? 1 : 0);
}

static void *caller(void *argument)
{
	long first = (long)argument * CALLS;

	for (volatile long i = 0; i < CALLS; i++)
		steps(first + i);
	return 0;
}

static void *turns(void *argument)
{
	long first = (long)argument * CALLS;

	for (long i = 0; i < CALLS; i++)
		if (even(2 * (i % 4), first + i) != (first + i) * 100)
			wrong++;
	return 0;
}

static void *tells(void *argument)
{
	long first = (long)argument * CALLS;
	char text[64], want[64];

	for (long i = 0; i < CALLS; i++) {
		snprintf(want, sizeof(want), "id %ld, %g", first + i, 0.5);
		if (tell(text, first + i) != (int)strlen(want) || strcmp(text, want))
			wrong++;
		returned++;
	}
	return 0;
}

static void *holds(void *argument)
{
	if (hold((long)argument) != (long)argument * 100)
		wrong++;
	return 0;
}

/* Ends the process at a system call that sandboxes older than the kernel do not know: those that return probes make on x86-64. */
static int filter(void)
{
	struct sock_filter program[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 335, 0, 2),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 337, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog all = { sizeof(program) / sizeof(*program), program };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all, 0, 0);
}

int main(void)
{
	struct sigaction action = { .sa_handler = handler };
	pthread_t threads[THREADS];
	char line[64];

	sigaction(SIGUSR1, &action, 0);
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		void *(*run)(void *) = caller;

		if (!strcmp(line, "filter\n")) {
			printf("done %d 0 0\n", filter());
			fflush(stdout);
			continue;
		}
		if (strcmp(line, "release\n"))
			began = returned = wrong = 0;
		if (!strcmp(line, "turns\n"))
			run = turns;
		else if (!strcmp(line, "tells\n"))
			run = tells;
		else if (!strcmp(line, "hold\n"))
			run = holds;
		held = run == holds;
		if (strcmp(line, "release\n"))
			for (long i = 0; i < THREADS; i++)
				pthread_create(&threads[i], 0, run, (void *)i);
		if (held)
			while (began < THREADS)
				usleep(1000);
		else
			for (int i = 0; i < THREADS; i++)
				pthread_join(threads[i], 0);
		printf("done %ld %ld %ld\n", (long)began, (long)returned, (long)wrong);
		fflush(stdout);
	}
	return 0;
}
