/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A C program as it would be found on a machine, built with gcc -O2 -g: it knows nothing of probes. It reads lines
 * "SKU QUANTITY" from its standard input and answers each with the stock that is left.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct article {
	char sku[24];
	int64_t stock;
	bool discontinued;
};

static struct article shelf[] = {
	{ "tea-green", 1000000, false },
	{ "tea-black", 500, false },
	{ "pot-steel", 3, true },
};

static struct article *find(const char *sku)
{
	for (size_t i = 0; i < sizeof(shelf) / sizeof(shelf[0]); i++)
		if (strcmp(shelf[i].sku, sku) == 0)
			return &shelf[i];
	return NULL;
}

/* Takes pieces off the shelf; -1 if there are not enough. */
__attribute__((noinline)) int64_t take(struct article *article, const char *sku, int quantity, bool partial)
{
	if (!article || quantity < 1)
		return -1;
	if (article->stock < quantity) {
		if (!partial)
			return -1;
		quantity = (int)article->stock;
	}
	article->stock -= quantity;
	if (article->stock == 0)
		fprintf(stderr, "out of %s\n", sku);
	return article->stock;
}

int main(void)
{
	char line[256], sku[64];
	int quantity;

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%63s %d", sku, &quantity) != 2) {
			puts("what?");
			continue;
		}
		struct article *article = find(sku);
		printf("%s %lld\n", sku, (long long)take(article, sku, quantity, article && article->discontinued));
	}
	return 0;
}
