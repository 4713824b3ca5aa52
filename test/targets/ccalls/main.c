/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes recursive calls of work() in four threads, some of which a longjmp leaves, and says for each command how many began and how
 * many returned.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>

enum { THREADS = 4, CALLS = 500, DEPTH = 6 };

static atomic_long began, returned;

__attribute__((noinline)) long work(int depth, long id, jmp_buf away)
{
	long result = id * 100 + depth;

	began++;
	if (depth > 0)
		work(depth - 1, id, away);
	else if (id % 5 == 4)
		longjmp(away, 1);
	returned++;
	return depth % 4 == 3 ? -result : result;
}

static void *caller(void *argument)
{
	long first = (long)argument * CALLS;

	for (volatile long i = 0; i < CALLS; i++) {
		jmp_buf away;

		if (!setjmp(away))
			work(DEPTH, first + i, away);
	}
	return 0;
}

int main(void)
{
	char line[64];

	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		pthread_t threads[THREADS];

		began = returned = 0;
		for (long i = 0; i < THREADS; i++)
			pthread_create(&threads[i], 0, caller, (void *)i);
		for (int i = 0; i < THREADS; i++)
			pthread_join(threads[i], 0);
		printf("done %ld %ld\n", (long)began, (long)returned);
		fflush(stdout);
	}
	return 0;
}
