"""The kinds of small Python tasks: how each is asked, thought about, solved and called; `programs.py` makes the tasks.

A kind is a table row of templates. `$f` is the function, `$a` and `$b` its arguments, `$k` and `$m` constants, `$word`
the constant `$k` in letters. The solutions are ours: they are the only code that is ever run in this process.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

PLACEHOLDER = re.compile(r"\$(word|call|args|ask|[abfkm])")
# fmt: off
NUMBER_WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
]
TEXT_WORDS = [
    "apple", "river", "Green", "stone", "cat", "level", "noon", "paper", "Tree", "blue", "code", "radar", "a", "zoo",
    "Moon", "sun", "window", "tea", "Otto", "bread", "egg", "orange", "I", "dog", "kayak", "snow", "street", "banana",
]
# fmt: on
LETTERS = "abcdeghilmnoprstuw"

Value = int | str  # of a constant
Draw = Callable[[Random, Value], Any]  # one argument; the constant `$k` (or 0) says which values are near the edge


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a function is called with."""

    names: tuple[tuple[str, ...], ...]  # the arguments may be called one of these
    edges: tuple[list[Any], ...]  # always tried
    draw: Draw  # a list of arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of task."""

    name: str
    entries: tuple[str, ...]  # names of the function
    asks: tuple[str, ...]  # what it does, after "a function that"
    plan: tuple[str, ...]  # the lines of thought
    body: str  # of the solution, not indented
    inputs: Inputs
    constants: Mapping[str, Sequence[Value]] = field(default_factory=dict)


def draw_int(rng: Random, near: Value) -> int:
    """Return an integer, often one next to a constant or a multiple of it."""
    k = near if isinstance(near, int) else 0
    return rng.choice([k, k - 1, k + 1, k * rng.randint(2, 6), rng.randint(-60, 60), rng.randint(0, 99)])


def draw_pair(rng: Random, near: Value) -> list[int]:
    """Return two integers, every other time about as far apart as a constant says."""
    first, second = draw_int(rng, near), draw_int(rng, near)
    k = near if isinstance(near, int) else 0
    return [first, rng.choice([second, first + rng.choice([-k - 1, -k, k, k + 1])])]


def draw_ints(rng: Random, near: Value) -> list[int]:
    """Return a list of integers, now and then with equal ones."""
    numbers = [draw_int(rng, near) for _ in range(rng.randint(1, 8))]
    return [*numbers, rng.choice(numbers)] if rng.random() < 0.5 else numbers


def draw_text(rng: Random, near: Value) -> str:
    """Return a few words, sometimes around a letter."""
    words = rng.choices(TEXT_WORDS, k=rng.randint(1, 4))
    if isinstance(near, str) and rng.random() < 0.6:
        words.insert(0, near + rng.choice(TEXT_WORDS))
    return " ".join(words)


def draw_text_or_palindrome(rng: Random, near: Value) -> str:
    """Return a text that reads the same from behind every other time."""
    text = draw_text(rng, near)
    return text if rng.random() < 0.5 else text + text[::-1]


def draw_sorted(rng: Random, near: Value) -> list[int]:
    """Return a list that is in order every other time."""
    numbers = draw_ints(rng, near)
    return sorted(numbers) if rng.random() < 0.5 else numbers


INT = Inputs(
    names=(("n",), ("x",), ("number",), ("value",)),
    edges=([0], [-1], [1]),
    draw=lambda rng, near: [draw_int(rng, near)],
)
COUNT = Inputs(  # not negative and small: something is done so many times
    names=(("n",), ("number",), ("count",)),
    edges=([0], [1], [2]),
    draw=lambda rng, _: [rng.randint(3, 18)],
)
NATURAL = Inputs(
    names=(("n",), ("number",), ("value",)),
    edges=([0], [1]),
    draw=lambda rng, _: [rng.choice([rng.randint(2, 99), rng.randint(100, 99999)])],
)
TWO_INTS = Inputs(
    names=(("a", "b"), ("x", "y"), ("first", "second")),
    edges=([0, 0], [3, -3], [-2, 5]),
    draw=draw_pair,
)
TWO_NATURALS = Inputs(
    names=(("a", "b"), ("x", "y"), ("m", "n")),
    edges=([0, 5], [7, 0], [1, 9]),
    draw=lambda rng, _: [(common := rng.randint(1, 12)) * rng.randint(1, 9), common * rng.randint(1, 9)],
)
INTS = Inputs(
    names=(("items",), ("values",), ("numbers",), ("nums",)),
    edges=([[]], [[0]], [[-3, 2, -3]]),
    draw=lambda rng, near: [draw_ints(rng, near)],
)
SORTED = Inputs(names=INTS.names, edges=([[]], [[1, 1]], [[2, 1]]), draw=lambda rng, near: [draw_sorted(rng, near)])
TEXT = Inputs(names=(("text",), ("s",), ("line",)), edges=([""], ["a"]), draw=lambda rng, near: [draw_text(rng, near)])
PALINDROME = Inputs(
    names=TEXT.names, edges=([""], ["ab"], ["noon"]), draw=lambda rng, near: [draw_text_or_palindrome(rng, near)]
)
WORDS = Inputs(
    names=(("words",), ("names",), ("parts",)),
    edges=([[]], [["a"]]),
    draw=lambda rng, near: [draw_text(rng, near).split()],
)

SMALL, LARGE = range(2, 13), range(2, 51)  # constants; the small ones have names such as add_three

NUMBER_KINDS = [
    Kind(
        name="add_constant",
        entries=("add_$word", "plus_$word", "increase", "add_number"),
        asks=("returns $a plus $k", "adds $k to $a and returns the sum"),
        plan=("I add $k to $a.",),
        body="return $a + $k",
        inputs=INT,
        constants={"k": SMALL},
    ),
    Kind(
        name="multiply_constant",
        entries=("times_$word", "multiply_by_$word", "scale", "multiple"),
        asks=("returns $a times $k", "multiplies $a by $k and returns the product"),
        plan=("I multiply $a by $k.",),
        body="return $a * $k",
        inputs=INT,
        constants={"k": SMALL},
    ),
    Kind(
        name="linear",
        entries=("linear", "transform", "scale_and_shift", "compute"),
        asks=("returns $k times $a plus $m", "multiplies $a by $k and then adds $m"),
        plan=("First the product of $k and $a.", "Then I add $m."),
        body="return $k * $a + $m",
        inputs=INT,
        constants={"k": SMALL, "m": LARGE},
    ),
    Kind(
        name="is_multiple",
        entries=("is_multiple_of_$word", "divisible_by_$word", "is_multiple", "divides"),
        asks=("returns True if $a is divisible by $k, else False", "tells whether $a is a multiple of $k"),
        plan=("I need the rest of the division by $k.", "It is 0 for a multiple."),
        body="return $a % $k == 0",
        inputs=INT,
        constants={"k": SMALL},
    ),
    Kind(
        name="remainder",
        entries=("remainder", "rest_by_$word", "modulo_$word", "left_over"),
        asks=("returns the remainder of $a divided by $k", "divides $a by $k and returns what is left over"),
        plan=("The operator % gives the rest.",),
        body="return $a % $k",
        inputs=NATURAL,
        constants={"k": SMALL},
    ),
    Kind(
        name="clamp",
        entries=("clamp", "limit", "keep_in_range", "bound"),
        asks=("limits $a to the range from $k to $m", "returns $a, but at least $k and at most $m"),
        plan=("Not more than $m: I take the minimum.", "Not less than $k: I take the maximum."),
        body="return max($k, min($m, $a))",
        inputs=INT,
        constants={"k": range(0, 13), "m": range(15, 51)},
    ),
    Kind(
        name="distance",
        entries=("distance", "distance_to_$word", "gap", "how_far"),
        asks=("returns the distance between $a and $k", "returns the absolute difference of $a and $k"),
        plan=("I subtract $k.", "abs makes it positive."),
        body="return abs($a - $k)",
        inputs=INT,
        constants={"k": SMALL},
    ),
    Kind(
        name="power",
        entries=("power", "power_of_$word", "raise_to_$word"),
        asks=("returns $a to the power of $k", "raises $a to the power $k"),
        plan=("The operator ** gives powers.",),
        body="return $a ** $k",
        inputs=INT,
        constants={"k": range(2, 6)},
    ),
    Kind(
        name="factorial",
        entries=("factorial", "fact", "compute_factorial", "product_to"),
        asks=("returns the factorial of $a", "returns the product of the whole numbers from 1 to $a (1 for 0)"),
        plan=("I start with 1.", "Then I multiply by 2, 3 and so on up to $a."),
        body="result = 1\nfor i in range(2, $a + 1):\n    result *= i\nreturn result",
        inputs=COUNT,
    ),
    Kind(
        name="sum_to",
        entries=("sum_to", "sum_up_to", "add_all", "triangle"),
        asks=("returns the sum of the whole numbers from 1 to $a", "adds up 1, 2, 3 and so on up to $a"),
        plan=("I sum a range.", "It must include $a."),
        body="return sum(range(1, $a + 1))",
        inputs=COUNT,
    ),
    Kind(
        name="sum_multiples",
        entries=("sum_multiples", "sum_of_multiples", "add_multiples_of_$word"),
        asks=("returns the sum of the multiples of $k from $k to $a", "adds up all multiples of $k up to $a"),
        plan=("I go from $k to $a in steps of $k.", "I sum this range."),
        body="return sum(range($k, $a + 1, $k))",
        inputs=COUNT,
        constants={"k": SMALL},
    ),
    Kind(
        name="gcd",
        entries=("gcd", "common_divisor", "greatest_divisor", "find_gcd"),
        asks=("returns the greatest common divisor of $a and $b", "returns the largest number that divides $a and $b"),
        plan=("I use Euclid's algorithm.", "While $b is not 0, I take the rest."),
        body="while $b:\n    $a, $b = $b, $a % $b\nreturn $a",
        inputs=TWO_NATURALS,
    ),
    Kind(
        name="larger",
        entries=("larger", "maximum_of_two", "bigger", "pick_larger"),
        asks=("returns the larger one of $a and $b", "compares $a and $b and returns the larger one"),
        plan=("If $a is greater than $b, it is $a.", "Otherwise it is $b."),
        body="if $a > $b:\n    return $a\nreturn $b",
        inputs=TWO_INTS,
    ),
    Kind(
        name="within",
        entries=("is_close", "within_$word", "nearly_equal", "are_near"),
        asks=("returns True if $a and $b differ by at most $k", "tells whether $a and $b are at most $k apart"),
        plan=("I need the absolute difference.", "It must be at most $k."),
        body="return abs($a - $b) <= $k",
        inputs=TWO_INTS,
        constants={"k": SMALL},
    ),
    Kind(
        name="digit_sum",
        entries=("digit_sum", "sum_digits", "add_digits", "cross_sum"),
        asks=("returns the sum of the digits of $a", "adds up the decimal digits of $a"),
        plan=("I write $a as a string.", "I add its digits as numbers."),
        body="return sum(int(digit) for digit in str($a))",
        inputs=NATURAL,
    ),
    Kind(
        name="count_digit",
        entries=("count_digit", "digit_count", "count_$word", "how_many"),
        asks=("returns how often the digit $k occurs in $a", "counts the digit $k in the number $a"),
        plan=("I write $a as a string.", 'I count "$k" in it.'),
        body='return str($a).count("$k")',
        inputs=NATURAL,
        constants={"k": range(1, 10)},
    ),
    Kind(
        name="fizz",
        entries=("fizz", "label", "fizz_label", "say"),
        asks=(
            'returns "$m" if $a is a multiple of $k, else $a as a string',
            'returns the string of $a, but "$m" for multiples of $k',
        ),
        plan=('For a multiple of $k it is "$m".', "Otherwise I use str."),
        body='if $a % $k == 0:\n    return "$m"\nreturn str($a)',
        inputs=INT,
        constants={"k": SMALL, "m": ("Fizz", "Buzz", "Pop", "Bang")},
    ),
    Kind(
        name="grade",
        entries=("grade", "rate", "level", "compare_with_$word"),
        asks=(
            'returns "high" if $a is greater than $k, else "low"',
            'returns "high" for $a above $k and "low" for all else',
        ),
        plan=('Greater than $k means "high".', 'All else is "low".'),
        body='if $a > $k:\n    return "high"\nreturn "low"',
        inputs=INT,
        constants={"k": SMALL},
    ),
    Kind(
        name="collatz",
        entries=("next_step", "collatz", "step", "next_number"),
        asks=(
            "returns half of $a if $a is even, else $k times $a plus 1",
            "halves an even $a, and turns an odd one into $k times $a plus 1",
        ),
        plan=("If $a is even, I halve it with //.", "Otherwise it is $k times $a plus 1."),
        body="if $a % 2 == 0:\n    return $a // 2\nreturn $k * $a + 1",
        inputs=INT,
        constants={"k": (3, 5, 7, 9, 11)},
    ),
    Kind(
        name="fibonacci",
        entries=("fibonacci", "fib", "fibonacci_number", "nth_fibonacci"),
        asks=(
            "returns Fibonacci number $a, where number 0 is 0 and number 1 is 1",
            "returns the Fibonacci number with index $a (0, 1, 1, 2, 3, ...)",
        ),
        plan=("I keep two numbers, first 0 and 1.", "Each step moves them on."),
        body="old, new = 0, 1\nfor _ in range($a):\n    old, new = new, old + new\nreturn old",
        inputs=COUNT,
    ),
    Kind(
        name="is_prime",
        entries=("is_prime", "check_prime", "prime", "test_prime"),
        asks=("returns True if $a is a prime number, else False", "tells whether $a is prime"),
        plan=("A prime is at least 2.", "No smaller number from 2 on divides it."),
        body="return $a > 1 and all($a % i for i in range(2, $a))",
        inputs=COUNT,
    ),
    Kind(
        name="count_divisors",
        entries=("count_divisors", "num_divisors", "divisor_count", "divisors"),
        asks=("returns how many divisors $a has", "counts the numbers from 1 to $a that divide $a"),
        plan=("I try all numbers from 1 to $a.", "I count those with rest 0."),
        body="return sum(1 for i in range(1, $a + 1) if $a % i == 0)",
        inputs=COUNT,
    ),
]

LIST_KINDS = [
    Kind(
        name="sum_list",
        entries=("sum_list", "total", "add_up", "sum_all"),
        asks=("returns the sum of $a", "adds up all numbers in the list $a"),
        plan=("The total starts at 0.", "I add each item."),
        body="total = 0\nfor item in $a:\n    total += item\nreturn total",
        inputs=INTS,
    ),
    Kind(
        name="product_list",
        entries=("product", "multiply_all", "product_list", "list_product"),
        asks=("returns the product of the numbers in $a (1 for an empty list)", "multiplies all numbers in $a, from 1"),
        plan=("The result starts at 1.", "I multiply by each item."),
        body="result = 1\nfor item in $a:\n    result *= item\nreturn result",
        inputs=INTS,
    ),
    Kind(
        name="sum_greater",
        entries=("sum_greater", "sum_above_$word", "sum_large", "total_above"),
        asks=("returns the sum of the numbers in $a that are greater than $k", "adds up what is above $k in $a"),
        plan=("I take the items greater than $k.", "I sum them."),
        body="return sum(item for item in $a if item > $k)",
        inputs=INTS,
        constants={"k": SMALL},
    ),
    Kind(
        name="count_greater",
        entries=("count_greater", "count_above_$word", "count_large", "num_above"),
        asks=("returns how many numbers in $a are greater than $k", "counts the items of $a above $k"),
        plan=("I look for items greater than $k.", "Each one counts 1."),
        body="return sum(1 for item in $a if item > $k)",
        inputs=INTS,
        constants={"k": SMALL},
    ),
    Kind(
        name="keep_multiples",
        entries=("keep_multiples", "multiples_of_$word", "filter_multiples", "select_multiples"),
        asks=("returns the numbers in $a that are divisible by $k", "keeps the multiples of $k in $a"),
        plan=("I keep an item if its rest by $k is 0.",),
        body="return [item for item in $a if item % $k == 0]",
        inputs=INTS,
        constants={"k": SMALL},
    ),
    Kind(
        name="drop_multiples",
        entries=("drop_multiples", "remove_multiples", "without_multiples", "not_by_$word"),
        asks=("returns the numbers in $a that are not divisible by $k", "removes the multiples of $k from $a"),
        plan=("I keep an item if its rest by $k is not 0.",),
        body="return [item for item in $a if item % $k != 0]",
        inputs=INTS,
        constants={"k": SMALL},
    ),
    Kind(
        name="keep_smaller",
        entries=("keep_smaller", "below_$word", "filter_small", "smaller_than_$word"),
        asks=("returns the numbers in $a that are smaller than $k", "keeps the items of $a below $k"),
        plan=("I keep an item if it is smaller than $k.",),
        body="return [item for item in $a if item < $k]",
        inputs=INTS,
        constants={"k": SMALL},
    ),
    Kind(
        name="add_to_each",
        entries=("add_to_each", "shift_all", "add_$word_to_each", "raise_all"),
        asks=("returns a list with $k added to each number in $a", "adds $k to every item of $a"),
        plan=("I go through the list.", "Each item becomes itself plus $k."),
        body="return [item + $k for item in $a]",
        inputs=INTS,
        constants={"k": SMALL},
    ),
    Kind(
        name="multiply_each",
        entries=("multiply_each", "scale_all", "times_$word_each", "scale_list"),
        asks=("returns a list with each number in $a times $k", "multiplies every item of $a by $k"),
        plan=("I go through the list.", "Each item is multiplied by $k."),
        body="return [item * $k for item in $a]",
        inputs=INTS,
        constants={"k": SMALL},
    ),
    Kind(
        name="squares",
        entries=("squares", "square_all", "square_each", "list_squares"),
        asks=("returns a list with the square of each number in $a", "squares every item of $a"),
        plan=("I go through the list.", "Each item is multiplied by itself."),
        body="return [item * item for item in $a]",
        inputs=INTS,
    ),
    Kind(
        name="largest",
        entries=("largest", "find_max", "highest", "maximum"),
        asks=("returns the largest number in $a, or $k for an empty list", "returns the maximum of $a ($k if empty)"),
        plan=("max finds the largest item.", "For an empty list the default is $k."),
        body="return max($a, default=$k)",
        inputs=INTS,
        constants={"k": range(0, 13)},
    ),
    Kind(
        name="smallest",
        entries=("smallest", "find_min", "lowest", "minimum"),
        asks=("returns the smallest number in $a, or $k for an empty list", "returns the minimum of $a ($k if empty)"),
        plan=("An empty list gives $k.", "Otherwise min finds the smallest item."),
        body="if not $a:\n    return $k\nreturn min($a)",
        inputs=INTS,
        constants={"k": range(0, 13)},
    ),
    Kind(
        name="spread",
        entries=("spread", "value_range", "max_minus_min", "width"),
        asks=(
            "returns the largest minus the smallest number in $a (0 for an empty list)",
            "returns the difference of maximum and minimum of $a, 0 if empty",
        ),
        plan=("An empty list gives 0.", "Otherwise I subtract the minimum from the maximum."),
        body="if not $a:\n    return 0\nreturn max($a) - min($a)",
        inputs=INTS,
    ),
    Kind(
        name="running_sums",
        entries=("running_sums", "running_total", "cumulative", "partial_sums"),
        asks=("returns the list of running sums of $a", "returns a list with the sum of $a up to each item"),
        plan=("I keep a total.", "After each item I append it."),
        body="total, result = 0, []\nfor item in $a:\n    total += item\n    result.append(total)\nreturn result",
        inputs=INTS,
    ),
    Kind(
        name="unique",
        entries=("unique", "dedupe", "remove_duplicates", "distinct"),
        asks=(
            "removes duplicates from $a and keeps the order",
            "returns the distinct items of $a in their first order",
        ),
        plan=("I start with an empty list.", "I append an item if it is not there yet."),
        body=("result = []\nfor item in $a:\n    if item not in result:\n        result.append(item)\nreturn result"),
        inputs=INTS,
    ),
    Kind(
        name="reverse_list",
        entries=("reverse_list", "reversed_list", "backwards", "flip"),
        asks=("returns the list $a in reverse order", "returns the items of $a from last to first"),
        plan=("A slice with step -1 reverses the list.",),
        body="return $a[::-1]",
        inputs=INTS,
    ),
    Kind(
        name="take_first",
        entries=("take_first", "first_$word", "head", "take"),
        asks=("returns the first $k items of $a", "returns $a cut to its first $k items"),
        plan=("I take a slice that ends at $k.",),
        body="return $a[:$k]",
        inputs=INTS,
        constants={"k": range(2, 7)},
    ),
    Kind(
        name="drop_first",
        entries=("drop_first", "skip_$word", "tail", "skip"),
        asks=("returns $a without its first $k items", "skips the first $k items of $a and returns the rest"),
        plan=("I take a slice that starts at $k.",),
        body="return $a[$k:]",
        inputs=INTS,
        constants={"k": range(2, 7)},
    ),
    Kind(
        name="take_last",
        entries=("take_last", "last_$word", "end_part", "last_items"),
        asks=("returns the last $k items of $a", "returns the $k items at the end of $a"),
        plan=("I take a slice from -$k to the end.",),
        body="return $a[-$k:]",
        inputs=INTS,
        constants={"k": range(2, 7)},
    ),
    Kind(
        name="rotate",
        entries=("rotate", "rotate_left", "move_$word", "rotate_by_$word"),
        asks=("moves the first $k items of $a to the end", "returns $a rotated to the left by $k"),
        plan=("First comes the rest from $k on.", "Then the first $k items."),
        body="return $a[$k:] + $a[:$k]",
        inputs=INTS,
        constants={"k": range(2, 7)},
    ),
    Kind(
        name="every_kth",
        entries=("every_$word", "take_every", "pick_every", "thin_out"),
        asks=("returns every item of $a whose index is a multiple of $k", "returns items 0, $k and so on of $a"),
        plan=("I take a slice with step $k.",),
        body="return $a[::$k]",
        inputs=INTS,
        constants={"k": range(2, 7)},
    ),
    Kind(
        name="count_value",
        entries=("count_value", "count_item", "occurrences", "count_of_$word"),
        asks=("returns how often $k occurs in the list $a", "counts the items of $a that are equal to $k"),
        plan=("The method count does this.",),
        body="return $a.count($k)",
        inputs=INTS,
        constants={"k": SMALL},
    ),
    Kind(
        name="find_index",
        entries=("find_index", "index_of", "position", "find_$word"),
        asks=("returns the index of the first $k in $a, or -1", "returns where $k first stands in $a, -1 if nowhere"),
        plan=("I go through index and item.", "When the item is $k, I return the index.", "At the end it is -1."),
        body="for i, item in enumerate($a):\n    if item == $k:\n        return i\nreturn -1",
        inputs=INTS,
        constants={"k": SMALL},
    ),
    Kind(
        name="is_sorted",
        entries=("is_sorted", "in_order", "check_sorted", "ascending"),
        asks=("returns True if $a is in ascending order, else False", "tells whether $a is sorted"),
        plan=("I compare the list with its sorted copy.",),
        body="return $a == sorted($a)",
        inputs=SORTED,
    ),
    Kind(
        name="sort_down",
        entries=("sort_down", "descending", "sort_descending", "order_down"),
        asks=("returns $a sorted from largest to smallest", "sorts $a in descending order"),
        plan=("sorted with reverse=True does this.",),
        body="return sorted($a, reverse=True)",
        inputs=INTS,
    ),
    Kind(
        name="replace_value",
        entries=("replace_value", "replace_all", "swap_value", "replace_$word"),
        asks=("returns $a with each $k replaced by $m", "replaces every $k in $a by $m"),
        plan=("An item equal to $k becomes $m.", "All others stay."),
        body="return [$m if item == $k else item for item in $a]",
        inputs=INTS,
        constants={"k": SMALL, "m": range(20, 60)},
    ),
    Kind(
        name="differences",
        entries=("differences", "gaps", "steps", "deltas"),
        asks=(
            "returns the differences between neighbours in $a",
            "returns a list of each next item minus the one before",
        ),
        plan=("zip gives the pairs of neighbours.", "I subtract the first from the second."),
        body="return [y - x for x, y in zip($a, $a[1:])]",
        inputs=INTS,
    ),
]

TEXT_KINDS = [
    Kind(
        name="count_vowels",
        entries=("count_vowels", "vowels", "num_vowels", "vowel_count"),
        asks=("returns the number of vowels in $a", "counts the letters a, e, i, o and u in $a, large or small"),
        plan=("I make the letters small.", "I count those in aeiou."),
        body='return sum(1 for char in $a.lower() if char in "aeiou")',
        inputs=TEXT,
    ),
    Kind(
        name="remove_vowels",
        entries=("remove_vowels", "drop_vowels", "without_vowels", "consonants"),
        asks=("returns $a without the vowels", "removes the letters a, e, i, o and u from $a, large or small"),
        plan=("I keep a character if it is not in aeiou.", "Then I join them."),
        body='return "".join(char for char in $a if char.lower() not in "aeiou")',
        inputs=TEXT,
    ),
    Kind(
        name="reverse_text",
        entries=("reverse_text", "reverse_string", "mirror", "backward"),
        asks=("returns the string $a in reverse", "returns $a from the last character to the first"),
        plan=("A slice with step -1 reverses the string.",),
        body="return $a[::-1]",
        inputs=TEXT,
    ),
    Kind(
        name="is_palindrome",
        entries=("is_palindrome", "palindrome", "check_palindrome", "same_backwards"),
        asks=("returns True if $a is a palindrome, else False", "tells whether $a reads the same from behind"),
        plan=("I compare the string with its reverse.",),
        body="return $a == $a[::-1]",
        inputs=PALINDROME,
    ),
    Kind(
        name="title_case",
        entries=("title_case", "capitalize_words", "to_title", "make_title"),
        asks=("capitalizes each word of $a and joins them with spaces", "returns $a with every word capitalized"),
        plan=("I split the words.", "I capitalize each one and join them again."),
        body='return " ".join(word.capitalize() for word in $a.split())',
        inputs=TEXT,
    ),
    Kind(
        name="count_letter",
        entries=("count_letter", "letter_count", "count_char", "count_$k"),
        asks=('returns how often the letter "$k" occurs in $a', 'counts "$k" in the string $a'),
        plan=("The method count does this.",),
        body='return $a.count("$k")',
        inputs=TEXT,
        constants={"k": LETTERS},
    ),
    Kind(
        name="remove_letter",
        entries=("remove_letter", "drop_letter", "without_$k", "delete_char"),
        asks=('returns $a without the letter "$k"', 'removes every "$k" from the string $a'),
        plan=('I replace "$k" by nothing.',),
        body='return $a.replace("$k", "")',
        inputs=TEXT,
        constants={"k": LETTERS},
    ),
    Kind(
        name="starts_with",
        entries=("starts_with", "begins_with_$k", "check_start", "has_prefix"),
        asks=('returns True if $a starts with "$k", else False', 'tells whether the string $a begins with "$k"'),
        plan=("The method startswith does this.",),
        body='return $a.startswith("$k")',
        inputs=TEXT,
        constants={"k": LETTERS},
    ),
    Kind(
        name="repeat_text",
        entries=("repeat", "repeat_text", "repeat_$word", "echo"),
        asks=("returns the string $a repeated $k times", "repeats $a $k times and returns the string"),
        plan=("A string times $k is repeated.",),
        body="return $a * $k",
        inputs=TEXT,
        constants={"k": SMALL},
    ),
    Kind(
        name="shout",
        entries=("shout", "loud", "to_upper", "make_loud"),
        asks=('returns $a in upper case followed by "$m"', 'makes $a upper case and appends "$m"'),
        plan=("The method upper makes capitals.", 'I add "$m" at the end.'),
        body='return $a.upper() + "$m"',
        inputs=TEXT,
        constants={"m": ("!", "!!", "?", ".", "!?")},
    ),
    Kind(
        name="count_words",
        entries=("count_words", "word_count", "num_words", "how_many_words"),
        asks=("returns the number of words in $a", "counts the words of $a, which are separated by spaces"),
        plan=("I split the text.", "len gives the number of parts."),
        body="return len($a.split())",
        inputs=TEXT,
    ),
    Kind(
        name="longest_word",
        entries=("longest_word", "find_longest", "longest", "max_word"),
        asks=(
            'returns the first longest word of $a, or "" if there is none',
            "returns the longest word in $a (the first)",
        ),
        plan=("I split the text.", "max with the key len finds the longest."),
        body='return max($a.split(), key=len, default="")',
        inputs=TEXT,
    ),
    Kind(
        name="initials",
        entries=("initials", "first_letters", "make_initials", "acronym"),
        asks=("returns the first letters of the words in $a as a string", "joins the first letter of each word of $a"),
        plan=("I split the text.", "I join the first character of each word."),
        body='return "".join(word[0] for word in $a.split())',
        inputs=TEXT,
    ),
    Kind(
        name="greet",
        entries=("greet", "greeting", "say_hello", "welcome"),
        asks=('returns "$m, " followed by $a and "!"', 'puts "$m, " before $a and "!" after it'),
        plan=('First comes "$m, ".', "Then $a and the mark."),
        body='return "$m, " + $a + "!"',
        inputs=TEXT,
        constants={"m": ("Hello", "Hi", "Welcome", "Good day")},
    ),
    Kind(
        name="long_words",
        entries=("long_words", "longer_than_$word", "filter_words", "keep_long"),
        asks=("returns the words in $a with more than $k letters", "keeps the strings of $a longer than $k"),
        plan=("I keep a word if its length is greater than $k.",),
        body="return [word for word in $a if len(word) > $k]",
        inputs=WORDS,
        constants={"k": range(2, 6)},
    ),
    Kind(
        name="lengths",
        entries=("lengths", "word_lengths", "get_lengths", "sizes"),
        asks=(
            "returns the list of the lengths of the strings in $a",
            "returns a list with the length of each word in $a",
        ),
        plan=("I go through the list.", "I take len of each word."),
        body="return [len(word) for word in $a]",
        inputs=WORDS,
    ),
    Kind(
        name="join_words",
        entries=("join_words", "join_with", "connect", "join_parts"),
        asks=('joins the strings in $a with "$m"', 'returns one string of all words in $a with "$m" between them'),
        plan=('The method join puts "$m" between them.',),
        body='return "$m".join($a)',
        inputs=WORDS,
        constants={"m": ("-", "+", ", ", "/", " and ", "; ")},
    ),
]

KINDS = {kind.name: kind for kind in [*NUMBER_KINDS, *LIST_KINDS, *TEXT_KINDS]}


def fill(template: str, values: Mapping[str, object]) -> str:
    """Return a template of a kind with its names and constants put in."""
    return PLACEHOLDER.sub(lambda found: str(values[found[1]]), template)
