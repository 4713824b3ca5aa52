/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A C program to probe: functions of known arguments, called when a line on standard input says so. Each command is
 * answered by one line, "done" and a sum over what the functions returned.
 *
 *	empty N			N calls of hot_empty
 *	pair N VALUE TEXT	N calls of hot_pair
 *	under DEPTH N		N calls of hot_pair below so many calls of functions that keep frame pointers
 *	text N TEXT		N calls of hot_text
 *	deep TEXT		one call of hot_deep, with TEXT behind two pointers
 *	wide			one call of hot_wide
 *	numbers N		N calls of it
 *	fields N		N calls of hot_fields, with ten numbers behind its argument
 *	null			hot_pair, hot_text and hot_deep with null pointers
 *	fault			hot_pair, hot_text and hot_deep with pointers to memory that is not mapped
 *	edge N TEXT		hot_text with TEXT at the end of a page behind which there is none, N times
 *	size BYTES		hot_pair and hot_text with so many bytes of 'a', 'b', ...
 *	odd LENGTH		hot_pair with such a length, which no string has
 *	image FILE A B C D E F	one call of hot_image with these words as arguments, and the first two pages of FILE in memory at
 *				0xc000000000 and 0xd000000000
 *	threads T N		N calls of hot_pair in each of T threads at once
 *	soak BYTE N		N calls of hot_pair, on one processor, with texts of nothing but BYTE, of many lengths, and with the length above
 *				the byte as value; a signal comes every 50 us. Answered with the number of signals.
 *	run MICROSECONDS	calls of hot_pair by another thread, with such pauses, until
 *	halt			which is answered when that thread has ended, with the number of its calls
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((noipa)) /* every call is made, with every argument where the ABI says */

struct inner {
	uint64_t id;
	const char *text;
	uint64_t length;
};

struct outer {
	uint32_t number;
	const struct inner *inner;
};

API long hot_empty(void)
{
	return 1;
}

API long hot_pair(long value, const char *text, size_t length)
{
	return value + (text && length ? (long)length : 0);
}

API long hot_text(const char *text)
{
	return text != NULL;
}

API long hot_deep(const struct outer *o)
{
	return o != NULL;
}

API long hot_wide(int8_t a, uint8_t b, int16_t c, uint16_t d, int32_t e, uint64_t f)
{
	return a + b + c + d + e + (long)f;
}

struct fields {
	uint64_t field[10];
};

API long hot_fields(const struct fields *f)
{
	return f != NULL;
}

API long hot_image(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	return (a ^ b ^ c ^ d ^ e ^ f) != 0;
}

static long image(const char *path, char *words)
{
	void *const at[] = { (void *)0xc000000000, (void *)0xd000000000 };
	long page = sysconf(_SC_PAGESIZE), sum;
	uint64_t w[6];
	int fd = open(path, O_RDONLY);

	for (int i = 0; i < 6; i++)
		w[i] = strtoull(words, &words, 0);
	for (int i = 0; i < 2; i++)
		if (mmap(at[i], page, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, i * page) != at[i])
			abort();
	close(fd);
	sum = hot_image(w[0], w[1], w[2], w[3], w[4], w[5]);
	for (int i = 0; i < 2; i++)
		munmap(at[i], page);
	return sum;
}

static char *last_page(void) /* a page behind which no memory is mapped */
{
	long page = sysconf(_SC_PAGESIZE);
	char *p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	munmap(p + page, page);
	return p;
}

__attribute__((optimize("no-omit-frame-pointer"))) API long under(long depth, long n)
{
	volatile long sum = 0; /* or the compiler makes a loop of it */

	if (depth > 1)
		sum = under(depth - 1, n);
	else
		while (n-- > 0)
			sum += hot_pair(n, "sixteen letters.", 16);
	return sum;
}

struct work {
	pthread_t thread;
	long calls;
	useconds_t pause;
};

static volatile int running;

static void *hammer(void *arg)
{
	struct work *w = arg;

	for (long i = 0; i < w->calls; i++)
		hot_pair(i, "sixteen letters.", 16);
	return NULL;
}

static void *walk(void *arg)
{
	struct work *w = arg;

	for (w->calls = 0; running; w->calls++) {
		hot_pair(w->calls, "sixteen letters.", 16);
		if (w->pause)
			usleep(w->pause);
	}
	return NULL;
}

static struct work walker;

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
	(void)number;
	signals++;
}

/* Lengths that follow each other: short ones behind long ones, and on both sides of a word. */
static const size_t soak_lengths[] = { 1, 4096, 7, 300, 8, 9, 2000, 16, 0, 64, 63, 1024, 3, 4095 };

static long soak(unsigned char byte, long calls)
{
	static char text[4096];
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct itimerspec each = { { 0, 50000 }, { 0, 50000 } }, none = {};
	cpu_set_t one;
	timer_t timer;

	CPU_ZERO(&one);
	CPU_SET(byte % sysconf(_SC_NPROCESSORS_ONLN), &one);
	memset(text, byte, sizeof(text));
	signals = 0;
	if (sched_setaffinity(0, sizeof(one), &one) || sigaction(SIGALRM, &action, NULL) || timer_create(CLOCK_MONOTONIC, NULL, &timer) ||
	    timer_settime(timer, 0, &each, NULL))
		return -1;
	for (long i = 0; i < calls; i++) {
		size_t n = soak_lengths[i % (sizeof(soak_lengths) / sizeof(*soak_lengths))];

		hot_pair((long)n << 8 | byte, text, n);
	}
	timer_settime(timer, 0, &none, NULL);
	timer_delete(timer);
	return signals;
}

static long command(char *line)
{
	char *name = strtok(line, " "), *a = strtok(NULL, " "), *b = strtok(NULL, " "), *c = strtok(NULL, "");
	long page = sysconf(_SC_PAGESIZE), sum = 0, n;

	if (!name)
		return -1;
	n = a ? strtol(a, NULL, 0) : 0;
	if (!strcmp(name, "empty")) {
		while (n-- > 0)
			sum += hot_empty();
	} else if (!strcmp(name, "pair") && c) {
		long value = strtol(b, NULL, 0);

		while (n-- > 0)
			sum += hot_pair(value, c, strlen(c));
	} else if (!strcmp(name, "under") && b) {
		sum = under(n, strtol(b, NULL, 0));
	} else if (!strcmp(name, "text") && b) {
		while (n-- > 0)
			sum += hot_text(b);
	} else if (!strcmp(name, "deep") && a) {
		struct inner inner = { .id = 77, .text = a, .length = strlen(a) };
		struct outer outer = { .number = 7, .inner = &inner };

		sum = hot_deep(&outer);
	} else if (!strcmp(name, "wide")) {
		sum = hot_wide(-1, 200, -300, 60000, -70000, 1ULL << 63);
	} else if (!strcmp(name, "numbers")) {
		while (n-- > 0)
			sum += hot_wide(1, 2, 3, 4, 5, 6);
	} else if (!strcmp(name, "fields")) {
		struct fields fields = { { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 } };

		while (n-- > 0)
			sum += hot_fields(&fields);
	} else if (!strcmp(name, "null")) {
		struct outer outer = { .number = 7 };

		sum = hot_pair(0, NULL, 5) + hot_text(NULL) + hot_deep(NULL) + hot_deep(&outer);
	} else if (!strcmp(name, "fault")) {
		char *gone = last_page();

		munmap(gone, page);
		sum = hot_pair(0, gone, 5) + hot_text(gone) + hot_deep((const struct outer *)gone);
	} else if (!strcmp(name, "edge") && b) {
		char *p = last_page(), *text = p + page - strlen(b) - 1;

		strcpy(text, b);
		while (n-- > 0)
			sum += hot_text(text);
		munmap(p, page);
	} else if (!strcmp(name, "image") && b) {
		b[strlen(b)] = c ? ' ' : 0; /* strtok cut the words apart */
		sum = image(a, b);
	} else if (!strcmp(name, "size")) {
		char *p = malloc(n + 1);

		for (long i = 0; i < n; i++)
			p[i] = 'a' + i % 26;
		p[n] = 0;
		sum = hot_pair(n, p, n) + hot_text(p);
		free(p);
	} else if (!strcmp(name, "odd")) {
		sum = hot_pair(0, "short", strtoul(a, NULL, 0)) != 0;
	} else if (!strcmp(name, "threads") && b) {
		struct work w[64];

		for (long i = 0; i < n && i < 64; i++) {
			w[i].calls = strtol(b, NULL, 0);
			pthread_create(&w[i].thread, NULL, hammer, &w[i]);
		}
		for (long i = 0; i < n && i < 64; i++) {
			pthread_join(w[i].thread, NULL);
			sum += w[i].calls;
		}
	} else if (!strcmp(name, "soak") && b) {
		sum = soak(n, strtol(b, NULL, 0));
	} else if (!strcmp(name, "run")) {
		running = 1;
		walker.pause = n;
		pthread_create(&walker.thread, NULL, walk, &walker);
	} else if (!strcmp(name, "halt")) {
		running = 0;
		pthread_join(walker.thread, NULL);
		sum = walker.calls;
	} else {
		return -1;
	}
	return sum;
}

int main(void)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while ((n = getline(&line, &size, stdin)) > 0) {
		if (line[n - 1] == '\n')
			line[n - 1] = 0;
		printf("done %ld\n", command(line));
	}
	free(line);
	return 0;
}
