// SPDX-License-Identifier: Apache-2.0

// cfuncs calls functions of every shape that a probe has to read, and says before each call what it passes: a line
//
//	call NAME PATH=VALUE PATH=VALUE ...
//
// with strings in double quotes. It prints "ready" first and begins when it reads a line; each further line is one more
// round; it ends when its input does.

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define NOINLINE __attribute__((noinline, noclone))

enum color { RED, GREEN = 7, BLUE = -3 };

struct address {
	char street[24];
	const char *city;
	short number;
};

struct customer {
	int64_t id;
	struct address home;
	struct address *work;
	char name[16];
	unsigned flag : 3;
	union {
		int code;
		float rate;
	};
};

struct pair {
	int a;
	short b;
	char tag[2];
	int64_t c;
};

struct mixed {
	double d;
	int64_t n;
};

struct large {
	int64_t cells[6];
	int n;
	char name[12];
};

typedef const char *text;

static volatile long total;

NOINLINE void integers(int8_t a, uint16_t b, int c, unsigned long d, bool e)
{
	total += a + b + c + (long)d + e;
}

NOINLINE void strings(const char *s, text t, char *none, unsigned char *raw)
{
	total += (long)strlen(s) + (long)strlen(t) + (none != NULL) + (raw != NULL);
}

NOINLINE void structs(struct customer *c, const struct address *a)
{
	total += c->id + c->code + a->number;
	__asm__ volatile("" : : "r"(c), "r"(a) : "memory"); /* all of what they point to is read */
}

NOINLINE long by_value(struct pair p, int n)
{
	return p.a + p.b + p.c + p.tag[0] + n;
}

NOINLINE long with_float(double x, int n, struct mixed m)
{
	return (long)x + n + (long)m.d + m.n;
}

NOINLINE long in_memory(struct large l, int n)
{
	return l.cells[n & 3] + l.n + n;
}

NOINLINE long many(int a, int b, int c, int d, int e, int f, int g, long h, const char *i)
{
	return a + b + c + d + e + f + g + h + (long)strlen(i);
}

NOINLINE void increment(int *p) { *p += 1; }

NOINLINE int address_taken(int x, const char *s)
{
	increment(&x);
	return x + (int)strlen(s);
}

NOINLINE enum color enumeration(enum color c, void *p, int **pp)
{
	total += p != NULL;
	total += pp != NULL;
	return c == RED ? BLUE : c;
}

NOINLINE int unused(int a, int b, int c)
{
	(void)b;
	return a - c;
}

/* Its first instruction is the head of its loop where the compiler can make it so. */
NOINLINE void spin(char *p, char *e)
{
	do
		*p++ = 1;
	while (p != e);
}

NOINLINE int choose(int n, int x)
{
	switch (n) {
	case 0: return x + 17;
	case 1: return x * 3;
	case 2: return x - 11;
	case 3: return x ^ 99;
	case 4: total += x; return 4;
	case 5: return x << 2;
	case 6: return (int)total;
	default: return x;
	}
}

__attribute__((cold, noinline)) static void complain(int n) { fprintf(stderr, "bad %d\n", n); }

/* Its unlikely part may be put elsewhere. */
NOINLINE int checked(int n, const char *s)
{
	if (__builtin_expect(n < 0, 0)) {
		complain(n);
		total += (long)strlen(s);
		return -1;
	}
	return n + s[0];
}

static inline __attribute__((always_inline)) int inlined(int n) { return n * 2; }

static void round_(void)
{
	static char buffer[8];
	static int number = 5, *pointer = &number;

	for (int n = 0; n < 3; n++) {
		printf("call integers a=%d b=%u c=%d d=%lu e=%s\n", -n, 65000u + n, -70000 * n, (1ul << 63) + n, n == 1 ? "true" : "false");
		integers(-n, 65000 + n, -70000 * n, (1ul << 63) + n, n == 1);
	}
	printf("call strings s=\"hello\" t=\"\" none=\"nil pointer\"\n");
	strings("hello", "", NULL, NULL);
	printf("call strings s=\"h\303\251llo\" t=\"typedef\" none=\"x\"\n");
	strings("h\303\251llo", "typedef", "x", (unsigned char *)"raw");

	struct address work = {"Work St", "Rome", 12};
	struct customer c = {.id = -9, .home = {"Home Street 1", "Oslo", -3}, .work = &work, .name = "sixteen bytes!!!", .code = 77};
	printf("call structs c.id=-9 c.home.street=\"Home Street 1\" c.home.city=\"Oslo\" c.home.number=-3 c.work.street=\"Work St\" c.work.city=\"Rome\""
	       " c.name=\"sixteen bytes!!!\" c.code=77 a.number=12 a.street=\"Work St\"\n");
	structs(&c, &work);
	c.work = NULL;
	printf("call structs c.id=-9 c.work.city=\"nil pointer\" c.work.street=\"nil pointer\" a.number=12\n");
	structs(&c, &work);

	printf("call by_value p.a=-5 p.b=300 p.c=1099511627776 n=6\n");
	total += by_value((struct pair){-5, 300, "x", 1l << 40}, 6);
	printf("call with_float n=8 m.n=-4\n");
	total += with_float(2.5, 8, (struct mixed){1.5, -4});
	printf("call in_memory l.n=31 l.name=\"in memory\" n=9\n");
	total += in_memory((struct large){{1, 2, 3}, 31, "in memory"}, 9);
	printf("call many a=1 b=2 c=3 d=4 e=5 f=6 g=-7 h=-8000000000 i=\"ninth\"\n");
	total += many(1, 2, 3, 4, 5, 6, -7, -8000000000, "ninth");
	printf("call address_taken x=41 s=\"taken\"\n");
	total += address_taken(41, "taken");
	printf("call enumeration c=-3\n");
	total += enumeration(BLUE, &c, &pointer);
	printf("call unused a=10 c=30\n");
	total += unused(10, 20, 30);
	printf("call spin\n");
	spin(buffer, buffer + sizeof buffer);
	for (int n = 0; n < 8; n++) {
		printf("call choose n=%d x=%d\n", n, 100 + n);
		total += choose(n, 100 + n);
	}
	printf("call checked n=3 s=\"ok\"\n");
	total += checked(3, "ok") + inlined((int)total);
}

int main(void)
{
	char line[256];

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("ready\n");
	while (fgets(line, sizeof line, stdin)) {
		round_();
		printf("done\n");
	}
	return 0;
}
