"""Whether a trace runs in circles: exact periods of any length, the same sentences again, counters without content.

A readability check. Looks at thinking and response separately, and in each at the end (where a loop that was cut
stands) and inside (where one recovered from stands). Linear in the text: exact periods are found by looking for the
last characters further up; sentences are counted only where the text compresses well. Repetition of a working kind
passes: case analysis, tables, long division, sequences.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import Final, NamedTuple

from schemas.problem import Domain
from schemas.readability import Thresholds
from schemas.trace import FinishReason
from schemas.verdict import Reason
from verifiers.structure import paragraph_of
from verifiers.view import Cover, Finding, Part, View, fenced_spans, may_have_fences

KEY_CHARS: Final = 48  # looked for further up: long enough to be rare in prose (note on readability, 3.1)
MAX_PLACES: Final = 12  # where the key stands, that are tried as periods: a period may hold its end twice (guess)
LONG_STRIDE: Final = 1_024  # between two places inside a part where a period may end ...
LONG_REACH: Final = 20_480  # ... and how far up its key is looked for (guess)
SHORT_STRIDE: Final = 512
SHORT_REACH: Final = 1_024
STEPS: Final = ((SHORT_STRIDE, SHORT_REACH), (LONG_STRIDE, LONG_REACH))
MIN_SHORT_INNER_REPEATS: Final = 12  # of a short period inside a part (guess) ...
MIN_SHORT_INNER_CHARS: Final = 600  # ... and the characters it takes up
WINDOW: Final = 8_192  # characters in which sentences are counted: in long texts a late loop has a small share
TAIL_CHARS: Final = 4_000
MIN_TAIL_CHARS: Final = 1_200  # shorter texts compress by chance (note on readability, 3.1)
TAIL_RATIOS: Final = "tail ratios"  # of the parts, as they were compared with the thresholds
GATE_RATIO: Final = 0.35  # windows that compress less hold no loop: opens for 31 of 400 real traces (measured)
MIN_PARAGRAPH_CHARS: Final = 400
MIN_PARAGRAPHS: Final = 4
DENSE_SHARE: Final = 0.6  # of a window, that sentences seen before fill, however often each (guess)
MASKED_RATIO: Final = 0.2  # windows that compress less hold no counter without content (guess)
MASKED_SHARE: Final = 0.6  # of a window, that such counters fill (guess)
CUT_REPEATS: Final = 4  # of a stretch at the end of a text that was cut: the decision stands, only its reason is open
CUT_CHARS: Final = 200
CUT_LONG_REPEATS: Final = 3
CUT_LONG_CHARS: Final = 700
MAX_CODE_CHARS: Final = 4_000  # that repeat inside a closed block of code: boards, fixtures, a traceback (guess)
PROSE_SHARE: Final = 0.5  # of what repeats, that are letters: a list of numbers in a program's trace has fewer (guess)
SAME_LINES: Final = 0.25  # of the lines with numbers, that stay as they were: in a case analysis all change (guess)
SAME_NUMBERS: Final = 0.75  # of their numbers, likewise (guess)
MAX_COMPARED: Final = 100_000  # characters whose lines are compared
LINE_END: Final = re.compile(r"[.!?\n]")
DIGITS: Final = b"0123456789"
MAX_CODE_REPEATS: Final = 40
VERSE: Final = re.compile(  # a task whose answer comes back to its own lines
    r"\b(?:song|lyrics?|refrain|chorus|poem|ballad|rhyme|lullaby|hymn|lied|liedtext|gedicht|reim|chanson|po[èe]me|"
    r"comptine|canci[óo]n|estribillo|poema|can[çc][ãa]o|letra|bài hát|bài thơ)\b|песн|стих|считалк|歌|诗|詩|노래|시를|"
    r"قصيدة|أغنية|कविता|गीत|เพลง|กลอน",
    re.IGNORECASE,
)
WORK: Final = re.compile(r"\d[^.!?]*[=<>+*/^×÷]|[=<>+*/^×÷][^.!?]*\d")  # a sentence that computes
# A counter without content says that it goes on looking; an enumeration says what it found.
STUCK: Final = re.compile(
    r"\b(?:again|once more|still|wait|let me|let us|let's|look|check|try|attempt|start|begin|re-?check|maybe|hmm|"
    r"think|consider|continue|back to|go on|next|retry|"
    r"noch ?mals?|noch einmal|wieder|warte|moment|prüfe\w*|versuch\w*|weiter|"
    r"encore|à nouveau|attend\w*|vérifi\w*|essa\w+|recommen\w+|"
    r"otra vez|de nuevo|espera|comprob\w+|verifi\w+|intent\w+|sigamos|"
    r"de novo|outra vez|tent\w+|снова|ещё раз|еще раз|подожд\w+|проверим|проверю|попроб\w+|"
    r"lần nữa|kiểm tra|thử|chờ|tiếp tục)\b|"
    r"再|重新|继续|繼續|等等|等一下|试|試|もう一度|再び|確認|待って|続け|다시|한번|확인|잠깐|계속|"
    r"مرة أخرى|مجدد|انتظر|لنتحقق|فلنراجع|फिर|दोबारा|जाँच|रुको|อีกครั้ง|ตรวจสอบ|ลองใหม่|ต่อไป",
    re.IGNORECASE,
)
NEW: Final = re.compile(r"[\d=<>+*/^×÷→|]")
MIN_VERDICTS: Final = 4  # times that a case analysis in words comes to the same verdict (guess)
NEW_SHARE: Final = 0.8  # sentences with a number or a sign, each said once, for each repeated one (guess)
WINDOW_SHARE: Final = 0.5  # of a window, that repeated sentences fill (guess)
GLYPHS: Final = frozenset("|-+=_*#.~ \n\t─│┌┐└┘├┤┬┴┼═║█░▒▓/\\<>^·•&")  # tables, rules, drawings
MAX_GLYPH_CHARS: Final = 600  # more than that is no rule across a page

SENTENCE: Final = re.compile(r"[^.!?。！？\n]+")
NUMBER: Final = re.compile(r"\d+")
OPERATOR: Final = re.compile(r"[=<>+*/^|≤≥×÷→&\\]|[:-]\s?\d")
WORKED_LINE: Final = re.compile(
    r"^[^A-Za-z\n\u0080-\uffff]*$|^[^\n]*(?:[|=<>×÷→]|\d[^\n]*[+*/^:&]|[+*/^:&][^\n]*\d)[^\n]*$", re.MULTILINE
)


class Stretch(NamedTuple):
    """A piece of text that repeats itself with a period, in characters."""

    start: int
    end: int
    period: int

    @property
    def repeats(self) -> float:
        return (self.end - self.start) / self.period

    @property
    def num_chars(self) -> int:
        return self.end - self.start


def find_repetition(view: View) -> Finding | None:
    """Return the first loop, or a flag where a text is close to one."""
    if view.finish_reason is FinishReason.REPETITION:
        return Finding(Reason.REPETITION_LOOP, None, len(view.text))
    flag: Finding | None = None
    for part in view.parts:
        found = _in_part(view, part)
        if found is not None and not found.is_flag:
            return found
        flag = flag or found
    return flag


def _in_part(view: View, part: Part) -> Finding | None:
    text, limits = part.text.rstrip(), view.limits
    if len(text) * (1 if text.isascii() else 2) < limits.min_short_period_chars // 2:
        return None
    is_cut = view.is_cut and part is view.parts[-1]
    code = _closed_code(text, view.domain)
    stretch = (
        _loop_at_end(text, limits, is_cut=is_cut)
        or _loop_inside(text, limits, code)
        or (_loop_but_for_numbers(text, limits) if not code else None)
    )
    if stretch is not None:
        return _finding(part, stretch.start, stretch.end, stretch.repeats, limits.min_period_repeats)
    return _similar(view, part, text, code)


def _closed_code(text: str, domain: Domain) -> list[tuple[int, int]]:
    """Return the blocks of code that are closed, where code is no defect: what repeats in them was meant to."""
    return fenced_spans(text) if domain is not Domain.MATH and may_have_fences(text) else []


def _finding(part: Part, start: int, end: int, value: float, threshold: float, *, is_flag: bool = False) -> Finding:
    return Finding(Reason.REPETITION_LOOP, part.start + start, part.start + end, round(value, 4), threshold, is_flag)


# --- exact periods ----------------------------------------------------------------------------------------------------
def _loop_at_end(text: str, limits: Thresholds, *, is_cut: bool) -> Stretch | None:
    for stretch in periods_ending_at(text, len(text), len(text)):
        if _is_drawing(text, stretch):
            continue
        is_long = stretch.repeats >= limits.min_period_repeats and stretch.num_chars >= limits.min_period_chars
        num_chars = stretch.num_chars * (1 if text[stretch.start : stretch.end].isascii() else 2)  # Chinese says more
        is_short = stretch.repeats >= limits.min_short_period_repeats and num_chars >= limits.min_short_period_chars
        is_cut_loop = is_cut and (
            (stretch.repeats >= CUT_REPEATS and num_chars >= CUT_CHARS)
            or (stretch.repeats >= CUT_LONG_REPEATS and num_chars >= CUT_LONG_CHARS)
        )
        if is_long or is_short or is_cut_loop:
            return stretch
    return None


def _loop_inside(text: str, limits: Thresholds, code: list[tuple[int, int]]) -> Stretch | None:
    blocks = Cover(code)
    for stretch in _stretches_inside(text):
        is_meant = stretch.num_chars <= MAX_CODE_CHARS and stretch.repeats <= MAX_CODE_REPEATS
        if _is_drawing(text, stretch) or (is_meant and blocks.holds(stretch.start + 1, stretch.end)):
            continue
        is_long = stretch.repeats >= limits.min_inner_repeats and stretch.num_chars >= limits.min_inner_chars
        is_short = (
            stretch.repeats >= MIN_SHORT_INNER_REPEATS
            and stretch.num_chars >= MIN_SHORT_INNER_CHARS
            and any(map(str.isalpha, _unit(text, stretch)))  # decimals of 1/3, powers of ten
        )
        if is_long or is_short:
            return stretch
    return None


def _loop_but_for_numbers(text: str, limits: Thresholds) -> Stretch | None:
    """Return prose that repeats itself but for some of its numbers; where most lines have a new one, it is work."""
    if len(text) < limits.min_inner_chars:
        return None
    bare = text.encode("utf-8", "surrogatepass").translate(None, DIGITS).decode("utf-8", "surrogatepass")
    if len(bare) == len(text):
        return None
    places: BarePlaces | None = None
    for stretch in _stretches_inside(bare, ((LONG_STRIDE, LONG_REACH),)):
        if stretch.repeats < limits.min_inner_repeats or stretch.num_chars < limits.min_inner_chars:
            continue
        unit = _unit(bare, stretch)
        if sum(map(str.isalpha, unit)) < PROSE_SHARE * len(unit):
            continue
        places = places or BarePlaces(text)
        first = places.of(stretch.start)
        last = min(places.of(stretch.end - 1) + 1, first + MAX_COMPARED)
        lines = LINE_END.split(text[first:last])
        num_in_unit = len(LINE_END.findall(bare, stretch.end - stretch.period, stretch.end))
        pairs = [pair for pair in zip(lines, lines[num_in_unit:], strict=False) if NUMBER.search(pair[0])]
        if not num_in_unit or not pairs or _share_same(pairs) < SAME_LINES:
            continue
        numbers = [
            pair for one, other in pairs for pair in zip(NUMBER.findall(one), NUMBER.findall(other), strict=False)
        ]
        if _share_same(numbers) >= SAME_NUMBERS:
            return Stretch(first, last, max(1, (last - first) * stretch.period // stretch.num_chars))
    return None


class BarePlaces:
    """Where the characters of a text without its digits stand in the text."""

    BLOCK: Final = 1_024  # characters that are counted together; a power of two

    def __init__(self, text: str) -> None:
        self._data = text.encode("latin-1", "replace")  # a byte a character
        starts = range(0, len(self._data), self.BLOCK)
        self._before = list(accumulate((self._num_bare(start, self.BLOCK) for start in starts), initial=0))

    def of(self, number: int) -> int:
        """Return the place of the character with this number among those that are no digits, from 0."""
        block = bisect_right(self._before, number) - 1
        start, left, size = block * self.BLOCK, number - self._before[block], self.BLOCK
        while size > 1:
            size //= 2
            num_bare = self._num_bare(start, size)
            if num_bare <= left:
                start, left = start + size, left - num_bare
        return start

    def _num_bare(self, start: int, size: int) -> int:
        return len(self._data[start : start + size].translate(None, DIGITS))


def _share_same(pairs: Sequence[tuple[str, str]]) -> float:
    return sum(one == other for one, other in pairs) / len(pairs)


def _unit(text: str, stretch: Stretch) -> str:
    return text[stretch.end - min(stretch.period, 400) : stretch.end]


def _stretches_inside(text: str, steps: tuple[tuple[int, int], ...] = STEPS) -> Iterator[Stretch]:
    """Yield what repeats at places inside a text, first with short periods near by, then with long ones."""
    for stride, reach in steps:
        place = stride
        while place < len(text):
            if text.rfind(text[place - KEY_CHARS : place], max(0, place - reach), place - 1) < 0:
                place += stride
                continue
            step = place
            for found in periods_ending_at(text, place, reach, max_places=2):
                stretch = found._replace(end=found.end + _same_ahead(text, found.end - found.period, found.end))
                step = max(step, stretch.end)
                yield stretch
            place = max(place, step if step - place > stride else place) + stride


def periods_ending_at(text: str, end: int, reach: int, *, max_places: int = MAX_PLACES) -> Iterator[Stretch]:
    """Yield the stretches that end there and repeat with the distance to an earlier place of their last characters."""
    if end < 2 * KEY_CHARS:
        return
    key = text[end - KEY_CHARS : end]
    low, before = max(0, end - reach), end - 1
    for _ in range(max_places):
        place = text.rfind(key, low, before)
        if place < 0:
            return
        period = end - KEY_CHARS - place
        yield Stretch(place - _same_behind(text, place, place + period), end, period)
        before = place + KEY_CHARS - 1


def _same_behind(text: str, first: int, second: int) -> int:
    """Return how many characters before two places are the same; doubling steps, then halving ones."""
    count, step = 0, 64
    while step:
        size = min(step, first - count)
        if size and text[first - count - size : first - count] == text[second - count - size : second - count]:
            count += size
            step = step * 2 if size == step else step // 2
        else:
            step = size // 2
    return count


def _same_ahead(text: str, first: int, second: int) -> int:
    """Return how many characters from two places on are the same."""
    count, step = 0, 64
    while step:
        size = min(step, len(text) - second - count)
        if size and text[first + count : first + count + size] == text[second + count : second + count + size]:
            count += size
            step = step * 2 if size == step else step // 2
        else:
            step = size // 2
    return count


def _is_drawing(text: str, stretch: Stretch) -> bool:
    """Return whether what repeats is a rule, a table's frame or the like."""
    unit = text[stretch.end - min(stretch.period, 400) : stretch.end]
    return stretch.num_chars <= MAX_GLYPH_CHARS and GLYPHS.issuperset(unit)


# --- the same again, not exactly --------------------------------------------------------------------------------------
def _similar(view: View, part: Part, text: str, code: list[tuple[int, int]]) -> Finding | None:
    """Return a loop among the windows that compress well, or the flag of a tail that nearly does."""
    limits = view.limits
    if code:
        text, part = _without(text, part, code)
    ratios: list[float] = view.read.setdefault(f"ratios of {part.name}", [])
    for start in range(0, max(1, len(text) - WINDOW // 4), WINDOW):
        ratio = ratio_of(text[start : start + WINDOW])
        ratios.append(ratio)
        if ratio >= GATE_RATIO:
            continue
        for place in range(start, min(start + WINDOW, len(text) - MIN_TAIL_CHARS // 2), WINDOW // 2) or (start,):
            window = text[place : place + WINDOW]
            window_ratio = ratio if place == start else ratio_of(window)
            found = _in_window(part, window, window_ratio, place, limits, is_verse=False)
            if found is not None and _is_verse(view, part):
                found = _in_window(part, window, window_ratio, place, limits, is_verse=True)
            if found is not None:
                return found
    first, end = paragraph_of(view)
    may_repeat = view.has_fences or end - first >= MIN_PARAGRAPH_CHARS
    if may_repeat and (found := _paragraph_again(part, text)) is not None and not _is_verse(view, part):
        return found
    tail = text[-TAIL_CHARS:]
    if len(tail) < MIN_TAIL_CHARS:
        return None
    tail_ratio = ratios[0] if tail == text else ratio_of(tail)
    view.read.setdefault(TAIL_RATIOS, []).append(tail_ratio)
    if tail_ratio >= limits.flag_tail_ratio:
        return None
    prose = WORKED_LINE.sub("", tail)
    ratio = ratio_of(prose)
    if len(prose) < MIN_TAIL_CHARS or ratio >= limits.flag_tail_ratio:
        return None
    is_flag = ratio >= limits.min_tail_ratio or _is_enumeration(prose)
    bound = limits.flag_tail_ratio if is_flag else limits.min_tail_ratio
    return _finding(part, len(text) - len(tail), len(text), ratio, bound, is_flag=is_flag)


def _is_verse(view: View, part: Part) -> bool:
    """Return whether a part may come back to its own lines, since a song or the like was asked for."""
    return part.name == "response" and (view.domain is Domain.WRITING or VERSE.search(view.problem) is not None)


def _without(text: str, part: Part, code: list[tuple[int, int]]) -> tuple[str, Part]:
    """Return the text without blocks of code of moderate length; places in it are moved by what was left out before."""
    pieces, place = [], 0
    for start, end in code:
        if end - start <= WINDOW:
            pieces.append(text[place:start])
            place = end
    pieces.append(text[place:])
    return "".join(pieces), part._replace(start=part.start + (place if place and not pieces[0].strip() else 0))


def ratio_of(text: str) -> float:
    """Return the compressed size as a share of the text's bytes (zlib level 1); 1 for an empty text."""
    data = text.encode("utf-8", "surrogatepass")
    return len(zlib.compress(data, 1)) / len(data) if data else 1.0


def _in_window(
    part: Part, window: str, ratio: float, start: int, limits: Thresholds, *, is_verse: bool
) -> Finding | None:
    counts = Counter(map(str.strip, SENTENCE.findall(window)))
    again = {
        sentence: count
        for sentence, count in counts.items()
        if count > 1 and _is_said(sentence) and not WORK.search(sentence)
    }
    share = sum((count - 1) * len(sentence) for sentence, count in again.items()) / len(window)
    wanted = limits.max_repeated_share if len(window) < WINDOW else max(limits.max_repeated_share, WINDOW_SHARE)
    if share < min(wanted, DENSE_SHARE):
        again = {}
    worst = max(again, key=lambda sentence: again[sentence], default="")
    top = again.get(worst, 0)
    if again and _num_new(counts) >= NEW_SHARE * top:  # an enumeration: between two of them stands something new
        again = {}
    if is_verse and again and _is_song(counts, top):
        again = {}
    if again and again[worst] > limits.max_sentence_repeats and share >= wanted:
        place, end = window.find(worst), window.rfind(worst) + len(worst)
        return _finding(part, start + place, start + end, again[worst], limits.max_sentence_repeats)
    if again and share >= DENSE_SHARE and len(window) > MIN_TAIL_CHARS:  # few sentences, in any order
        return _finding(part, start, start + len(window), share, DENSE_SHARE)
    if ratio >= MASKED_RATIO:
        return None
    masked = Counter(map(str.strip, SENTENCE.findall(NUMBER.sub("0", window))))
    worst, num_masked = next(iter(masked.most_common(1)), ("", 0))
    is_loop = num_masked > limits.max_masked_repeats and num_masked * len(worst) >= MASKED_SHARE * len(window)
    is_stuck = STUCK.search(worst) is not None
    if is_loop and is_stuck and _is_said(worst) and OPERATOR.search(worst) is None:
        return _finding(part, start, start + len(window), num_masked, limits.max_masked_repeats)
    return None


def _num_new(counts: Counter[str]) -> int:
    """Return how many sentences are there once that say something or bring a number or a sign."""
    return sum(
        count == 1 and (NEW.search(sentence) is not None or _is_said(sentence)) for sentence, count in counts.items()
    )


def _is_enumeration(prose: str) -> bool:
    """Return whether a text is lines with new numbers in each, that do not speak of looking again."""
    counts = Counter(map(str.strip, SENTENCE.findall(prose)))
    top = max((count for said, count in counts.items() if _is_said(said)), default=0)
    num_new = sum(
        count == 1 and (NEW.search(said) is not None or (top >= MIN_VERDICTS and _is_said(said)))
        for said, count in counts.items()
    )
    return num_new >= NEW_SHARE * top and num_new > 2 and STUCK.search(prose) is None


def _is_song(counts: Counter[str], top: int) -> bool:
    """Return whether there is a new line for each time that the refrain comes back, or twice as many lines as that."""
    said = [count for sentence, count in counts.items() if _is_said(sentence)]
    return said.count(1) >= NEW_SHARE * top or len(said) >= 2 * top


def _is_said(sentence: str) -> bool:
    """Return whether a sentence says something: a dozen characters with letters in them, or half as many in Chinese."""
    num_letters = len(list(islice(filter(str.isalpha, sentence[:200]), 8)))
    return num_letters >= 8 or (num_letters >= 4 and not sentence.isascii())


def _paragraph_again(part: Part, text: str) -> Finding | None:
    counts = Counter(line for line in text.split("\n") if len(line) >= MIN_PARAGRAPH_CHARS)
    for line, count in counts.items():
        if count >= MIN_PARAGRAPHS:
            return _finding(part, text.find(line), text.rfind(line) + len(line), count, MIN_PARAGRAPHS)
    return None
