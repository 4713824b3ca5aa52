// SPDX-License-Identifier: Apache-2.0
volatile int sink;

namespace shop {
struct Cart {
	int items;
	__attribute__((noinline)) int total(int extra)
	{
		sink = extra;
		return items + extra;
	}
};

inline __attribute__((always_inline)) int twice(Cart &c, int n)
{
	return 2 * c.total(n);
}

__attribute__((noinline)) int checkout(Cart &c)
{
	return twice(c, sink) + 1;
}
} // namespace shop

int main()
{
	shop::Cart c{3};

	return shop::checkout(c);
}
