/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hands secrets to take() in every form that a C program has for them, and does what the lines of its standard input say:
 *
 *	set NAME VALUE   the value for the calls that follow; answered with "ok"
 *	call N           call take() N times; answered with "called N SUM"
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct inner {
	char *text;
	unsigned long number;
	char letters[64];
};

struct record {
	char *text;
	char letters[64];
	double real;
	_Bool flag;
	struct inner *inner;
	struct inner within;
};

static char text[64], stacked[64], behind[64], deep[64], near[64];
static long number_signed;
static unsigned long number, pointer, far, returned;
static struct inner inner = { .text = deep };
static struct record record = { .text = behind, .flag = 1, .inner = &inner, .within.text = near };

__attribute__((noinline)) unsigned long take(const char *text, long number_signed, unsigned long number, void *pointer, struct record *record, int flag,
					     const char *stacked, unsigned long far)
{
	__asm__ volatile("" : : "r"(text), "r"(record), "r"(stacked), "r"(pointer) : "memory");
	return flag ? returned : number + far + (unsigned long)number_signed;
}

static int set(const char *name, const char *value)
{
	unsigned long n = strtoul(value, 0, 10);
	struct {
		const char *name;
		char *text;
		unsigned long *number;
	} known[] = {
		{ "text", text, 0 },
		{ "number_signed", 0, (unsigned long *)&number_signed },
		{ "number", 0, &number },
		{ "pointer", 0, &pointer },
		{ "stacked", stacked, 0 },
		{ "far", 0, &far },
		{ "r0", 0, &returned },
		{ "record.text", behind, 0 },
		{ "record.letters", record.letters, 0 },
		{ "record.inner.text", deep, 0 },
		{ "record.inner.number", 0, &inner.number },
		{ "record.inner.letters", inner.letters, 0 },
		{ "record.within.text", near, 0 },
		{ "record.within", record.within.letters, 0 },
	};

	if (!strcmp(name, "record.real")) {
		record.real = strtod(value, 0);
		return 1;
	}
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcmp(name, known[i].name))
			continue;
		if (known[i].number)
			*known[i].number = n;
		else
			snprintf(known[i].text, 64, "%.63s", value);
		return 1;
	}
	return 0;
}

int main(void)
{
	char line[256], name[64], value[64];
	long calls;

	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "set %63s %63s", name, value) == 2) {
			puts(set(name, value) ? "ok" : "no value is called that");
		} else if (sscanf(line, "call %ld", &calls) == 1) {
			unsigned long sum = 0;

			for (volatile long i = 0; i < calls; i++)
				sum += take(text, number_signed, number, (void *)pointer, &record, 1, stacked, far);
			printf("called %ld %lu\n", calls, sum & 1);
		}
		fflush(stdout);
	}
	return 0;
}
