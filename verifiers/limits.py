"""Bounds on hostile text and on the processes that judge it: every number in one place, with its unit and origin.

A text beyond a bound is ``over_limit`` with the bound's reason, never "wrong": a wrong answer and an oversized one stay
different results. Holds numbers only.
"""

from __future__ import annotations

from typing import Final

# --- extraction, characters -----------------------------------------------------------------------------------------
MAX_LINE_CHARS: Final = 400  # longest text after a marker taken as an answer: longest MATH reference is 159 (measured)
MAX_TAIL_CHARS: Final = 32_768  # end of a response in which an answer without a box is looked for: 25 ms (measured)
MAX_MATH_CHARS: Final = 16_384  # end of a response in which the last formula is looked for (guess)
MAX_BOX_CHARS: Final = 65_536  # of one box: an answer longer than that never closes, for us (guess)
MAX_BOX_GAP_CHARS: Final = 600  # from one box to the next that may belong to it (guess)
MAX_JOINED_BOXES: Final = 50  # boxes that together make one answer: a list of answers is short (guess)
MAX_BARE_CHARS: Final = 300  # longest response without any marker taken whole as the answer (guess)
MAX_NAMED_LETTERS: Final = 50  # of a response, from its end, that may be the choice (guess)
CLAUSE_CHARS: Final = 120  # before a letter that are looked at (guess)
MAX_LETTERS_CHARS: Final = 40  # of a reference that is a letter or several: \text{(A), (B) and (C)} (guess)

# --- answers ---------------------------------------------------------------------------------------------------------
MAX_ANSWER_CHARS: Final = 4_096  # as inspect_ai's math scorer; the longest MATH reference is 159 (measured)
MAX_SCORED_CHARS: Final = 65_536  # answers of puzzles are grids and move lists: 100 KB is no answer any more (guess)
MAX_DEPTH: Final = 40  # nested parser calls of one answer (note on mathematics); about 5 of our frames each
MAX_TERM_DEPTH: Final = 100  # levels of a parsed answer: comparers recurse two or three of our frames a level
MAX_LITERAL_DIGITS: Final = 1_000  # digits of one number; int() of 4,300 is Python's own limit, this costs 20 us
MAX_TOKENS: Final = 800  # of one answer (guess); the longest reference of MATH has 35 (measured)
MAX_NUMBER_EXPONENT: Final = 5_000  # |exponent| of a number in scientific notation: it is computed exactly (guess)
MAX_PLAIN_CHARS: Final = 250  # of a number or pair read without the parser (guess)
MAX_PLAIN_DIGITS: Final = 60  # of a number read without the parser (guess)
MAX_BALL_BITS: Final = 20_000  # of a ball: 6,000 digits, 1 ms a function (measured)
MAX_SURD_RADICAND: Final = 10**15  # n of sqrt(n) kept exactly: its squares are found in 20 us (measured)
MAX_SURD_TERMS: Final = 16  # of a sum of roots kept exactly (guess)
MAX_EXACT_BITS: Final = 20_000  # of a rational number computed exactly (note on mathematics)
MAX_FACTORIAL: Final = 2_500  # n of n! computed exactly (note on mathematics)
MAX_MODULAR_FACTORIAL: Final = 20_000  # n of n! modulo a prime: 5 ms (measured)
MAX_SET_PARTS: Final = 24  # intervals and points of one set (guess)
MAX_PAIRED_ITEMS: Final = 12  # items without an exact value, compared each with each: 144 comparisons, 20 ms (measured)
MAX_MATRIX_FACTORS: Final = 8  # of a product of matrices (guess)
MAX_MATRIX_PRODUCTS: Final = 512  # products of cells in one product of matrices: 8 by 8 (guess)
MAX_BRANCHES: Final = 16  # values of an answer with several plus-minus signs (guess)
MAX_FACTORS: Final = 256  # entries of a factorisation: more means that an exponent was inflated (guess)
EXACT_DECIMAL_DIGITS: Final = 12  # a decimal with so many digits that fits a fraction to its last digit is a printed
# double of that fraction (doubles carry 15 to 17); with fewer digits it is a rounding, and wrong (guess)
SHARED_DECIMAL_DIGITS: Final = 15  # of two decimals of which one may be the other, cut: what every double has
MAX_LABEL_WORDS: Final = 4  # "square inches of paper" is one (guess)
MAX_SIGNS: Final = 4  # variables whose signs are combined in all ways (guess)
MAX_CORNERS: Final = 6  # constants of a piecewise function that points are put around (guess)
MAX_SHOWN_BITS: Final = 3_000  # 900 digits: int to str has a limit of its own, and nobody reads more
MAX_FORM_CHARS: Final = 200  # of each normal form kept in a verdict's detail (guess)

# --- batches ---------------------------------------------------------------------------------------------------------
CHUNK_PAIRS: Final = 100  # answers per message to a process: 0.03 s of plain work (measured)
CHUNK_DEADLINE_S: Final = 10.0  # CPU time of one chunk: twice what 100 hostile answers may take
MIN_SHARED_PAIRS: Final = 2_000  # fewer are compared sooner than processes start, which takes 0.3 s (measured)

# --- worker processes ------------------------------------------------------------------------------------------------
TASK_DEADLINE_S: Final = 1.2  # CPU time of one task: hostile cases must end within 2 s, p99 of plain ones is 0.3 s
STARVATION_FACTOR: Final = 50.0  # wall time in deadlines after which a task without its CPU time is our failure: a
# worker at niceness 10 beside one busy process at 0 gets a tenth of a core (sched(7): 1024 to 110), beside four a 38th
WORKER_MEMORY_MB: Final = 1_024  # address space on top of the loaded libraries (note on mathematics: 1 to 2 GB)
MAX_TASKS_PER_WORKER: Final = 500  # then a fresh process: sympy's caches grow (note on mathematics)
MAX_MESSAGE_BYTES: Final = 4 * 1_048_576  # one JSON message to or from a worker: payloads are capped far below
ZYGOTE_START_S: Final = 120.0  # imports take 1 to 4 s here; a machine so loaded that they take 120 s is broken (guess)
ZYGOTE_REPLY_S: Final = 30.0  # a fork or a kill takes milliseconds; reaping a process of some GB maybe a second (guess)

# --- judged programs -------------------------------------------------------------------------------------------------
SLOT_START_S: Final = 60.0  # a slot takes 0.1 s to start (measured); a machine that takes 60 s is broken (guess)
SLOT_GRACE_S: Final = 10.0  # beyond the wall limit, in which a slot must have killed a program and answered (guess)
MAX_STDERR_BYTES: Final = 65_536  # of a program's errors that are kept (note on the sandbox)
MAX_ANSWERS_MB: Final = 16  # of a function's answers in one program: they are read by the caller (guess)
MAX_BINARY_MB: Final = 128  # of a compiled program: a giant static array makes them grow (guess)
COMPILE_CPU_S: Final = 15.0  # bits/stdc++.h takes 1.4 s alone, 6 s on a loaded machine (note on the sandbox)
COMPILE_MEMORY_MB: Final = 1_024  # of a compiler's process (note on the sandbox)
MAX_CLAIM_ITEMS: Final = 1_000_000  # of a list or text that an assert puts together (guess)
MAX_CLAIM_BITS: Final = 100_000  # of a power that an assert computes (guess)
MAX_CACHED_VERDICTS: Final = 4_096  # of judged programs: a group's samples repeat within minutes (guess)
MAX_CACHED_PROGRAMS: Final = 64  # compiled ones: some KB to MB each (guess)
MAX_PROGRAM_CHARS: Final = 1_048_576  # of a source: no solution of a problem has a megabyte (guess)
