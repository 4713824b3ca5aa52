// SPDX-License-Identifier: Apache-2.0
// Code of many shapes: templates, virtual calls, exceptions, switches.
#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Shape {
	virtual ~Shape() = default;
	virtual double area() const = 0;
};

template <int N> struct Box : Shape {
	double side[N] = {};
	double area() const override
	{
		double sum = 1;
		for (double s : side)
			sum *= s + N;
		return sum;
	}
};

static std::string name(int n)
{
	switch (n % 9) {
	case 0: return "zero";
	case 1: return "one";
	case 2: throw std::runtime_error("two");
	case 3: return std::string(n, '3');
	case 4: return "four";
	case 5: return std::to_string(n * 5);
	case 6: return "six";
	case 7: return name(n / 7);
	default: return "eight";
	}
}

int main(int argc, char **argv)
{
	std::map<std::string, std::unique_ptr<Shape>> shapes;
	std::vector<int> numbers(100 + argc);
	std::ostringstream out;

	for (size_t i = 0; i < numbers.size(); i++) {
		numbers[i] = static_cast<int>(i * 7919 % 101);
		try {
			shapes[name(numbers[i])] = std::make_unique<Box<3>>();
		} catch (const std::exception &e) {
			out << e.what();
		}
	}
	std::sort(numbers.begin(), numbers.end(), [](int a, int b) { return a % 10 < b % 10; });
	for (const auto &s : shapes)
		out << s.first << s.second->area();
	std::cout << out.str().size() << '\n';
	return 0;
}
