// SPDX-License-Identifier: Apache-2.0
/* Calls probe_me from a function that is inlined, by recursion, once for each line of standard input, which says how deep. */
#include <stdio.h>
#include <stdlib.h>

volatile int sink;

__attribute__((noinline)) int probe_me(int n)
{
	sink = n;
	return n + 1;
}

static inline __attribute__((always_inline)) int inlined(int n)
{
	return probe_me(n) * 2;
}

__attribute__((noinline)) int recurse(int depth)
{
	int n = depth > 0 ? recurse(depth - 1) : inlined(depth);

	sink = n; /* or the compiler makes a loop of it */
	return n + 1;
}

int main(void)
{
	char line[32];

	while (fgets(line, sizeof(line), stdin)) {
		printf("%d\n", recurse(atoi(line)));
		fflush(stdout);
	}
	return 0;
}
