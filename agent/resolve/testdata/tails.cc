// SPDX-License-Identifier: Apache-2.0
// A function that ends in a call of another, which throws.
#include <cstdio>

extern "C" {
__attribute__((noinline, noclone)) long last(long n)
{
	if (n > 99)
		throw n;
	return n + 1;
}

__attribute__((noinline, noclone)) long tail(long n) { return last(2 * n); }
}

int main(int argc, char **)
{
	std::puts("ready");
	std::fflush(stdout);
	std::getchar();
	try {
		return tail(argc) & 0;
	} catch (long) {
		return 1;
	}
}
