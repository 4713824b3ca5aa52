/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A target that forks. It does what the lines of its standard input say, one after the other:
 *
 *	call N		call forks_work N times, answered with "called N"
 *	fork N		fork N children, each answered with "child PID"
 *	work N		have each child call forks_work N times, answered with "worked" by each
 *	exec PATH	fork a child that executes PATH, which must wait for its standard input, answered with "child PID"
 *	end		end and wait for all children, answered with "ended"
 *	red N		call forks_red N times, answered with "corrupt" and in how many calls what it keeps was changed
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_CHILDREN 512

static int pipes[MAX_CHILDREN];
static pid_t children[MAX_CHILDREN];
static int count;

__attribute__((noipa)) long forks_work(long n)
{
	return n * 2 + 1;
}

#ifdef __x86_64__
/* Keeps a value below the stack pointer, as a function that calls no other may, around a NOP of 5 bytes at its begin. */
long forks_red(long value);
__asm__(".text\n"
	".globl forks_red\n"
	".type forks_red, @function\n"
	".balign 16\n"
	"forks_red:\n"
	"	.byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n"
	"	movq %rdi, -8(%rsp)\n"
	"	movq %rdi, -64(%rsp)\n"
	"	nopl (%rax)\n"
	"	.byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n"
	"	movq -8(%rsp), %rax\n"
	"	cmpq -64(%rsp), %rax\n"
	"	je 1f\n"
	"	xorl %eax, %eax\n"
	"1:	ret\n"
	".size forks_red, . - forks_red\n");
#else
__attribute__((noipa)) long forks_red(long value)
{
	return value;
}
#endif

static void child(int orders)
{
	char line[32];
	FILE *f = fdopen(orders, "r");

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (f && fgets(line, sizeof(line), f)) {
		for (long i = 0, n = atol(line); i < n; i++)
			forks_work(i);
		printf("worked\n");
	}
	_exit(0);
}

static int start(const char *path)
{
	int p[2];

	if (count == MAX_CHILDREN || pipe(p))
		return -1;
	children[count] = fork();
	if (children[count] < 0)
		return -1;
	if (!children[count]) {
		for (int i = 0; i < count; i++)
			close(pipes[i]);
		close(p[1]);
		if (!path)
			child(p[0]);
		dup2(p[0], 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(path, path, NULL);
		_exit(1);
	}
	close(p[0]);
	pipes[count] = p[1];
	printf("child %d\n", children[count++]);
	return 0;
}

static void end(void)
{
	for (int i = 0; i < count; i++)
		close(pipes[i]);
	for (int i = 0; i < count; i++)
		waitpid(children[i], NULL, 0);
	count = 0;
	printf("ended\n");
}

int main(void)
{
	char line[256];

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("ready\n");
	while (fgets(line, sizeof(line), stdin)) {
		long n = 0, bad = 0;

		line[strcspn(line, "\n")] = 0;
		if (sscanf(line, "call %ld", &n) == 1) {
			for (long i = 0; i < n; i++)
				forks_work(i);
			printf("called %ld\n", n);
		} else if (sscanf(line, "fork %ld", &n) == 1) {
			while (n-- > 0)
				if (start(NULL))
					return 1;
		} else if (sscanf(line, "work %ld", &n) == 1) {
			for (int i = 0; i < count; i++)
				dprintf(pipes[i], "%ld\n", n);
		} else if (!strncmp(line, "exec ", 5)) {
			if (start(line + 5))
				return 1;
		} else if (sscanf(line, "red %ld", &n) == 1) {
			for (long i = 1; i <= n; i++)
				bad += forks_red(i) != i;
			printf("corrupt %ld\n", bad);
		} else if (!strcmp(line, "end")) {
			end();
		} else {
			return 2;
		}
	}
	return 0;
}
