"""Whether a trace has the layout of its format: whole, tags in order, something in each part, one answer.

Five readability checks, a state machine over the tags. The formats are ``schemas.trace.TraceFormat``; a check says
nothing about whether the answer is right. The engine's word decides truncation where it is known.
"""

from __future__ import annotations

import re
from itertools import islice, pairwise
from typing import Final

from schemas.problem import Domain
from schemas.trace import FinishReason, TraceFormat
from schemas.verdict import Reason
from verifiers.extract import MARKER, Span, find_boxes
from verifiers.parser import normal_form
from verifiers.view import Finding, View, fence_starts
from verifiers.words import as_words

NOT_A_THOUGHT: Final = re.compile(r"\s*(?:n\s*/\s*a|none|null|无|没有|無し|なし|特になし|없음)[\s.。]*", re.IGNORECASE)
INVISIBLE: Final = re.compile(r"[\s\u200b\u200c\u200d\u2060\ufeff]+")
SOMETHING: Final = re.compile(r"[^\W_]|[^\x00-\u200f\u2028-\u202f\u205f-\u206f\ufeff]")
HEAD_CHARS: Final = 400  # of a thought, in which letters are counted first
MIN_THOUGHT_LETTERS: Final = 4  # fewer letters and no digit: nothing was thought (note on readability, 3.3)
DIGIT: Final = re.compile(r"\d")
MATH_IN_TEXT: Final = re.compile(r"\\\(|\\\[|\$[^$]")
NUMBER_WORD: Final = re.compile(
    r"\b(?:zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|"
    r"twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|infinite\w*|"
    r"eins|zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|deux|trois|quatre|cinq|huit|neuf|dix|cero|dos|tres|"
    r"cuatro|cinco|seis|siete|ocho|nueve|diez|zero|dois|três|quatro|sete|oito|nove|dez)\b|[一二三四五六七八九十百千]",
    re.IGNORECASE,
)
ANSWER_HEAD: Final = 4_000  # characters of a response in which an answer may stand: of its beginning ...
ANSWER_TAIL: Final = 8_000  # ... and its end
BLANK: Final = re.compile(r"(?:[\s?.…_~]|\\(?:[ ,;:!]|q?quad\b))*")  # inside a box: no answer, whatever space it makes
EMPTY_BOX: Final = re.compile(rf"\$*\s*\\boxed\s?\{{{BLANK.pattern}\}}\s*\$*")
UNDETERMINED: Final = re.compile(
    r"\b(?:cannot|can not|can't) be (?:determined|found|known|solved)|not enough (?:information|data)|no solution|"
    r"does not exist|insufficient (?:information|data)|undefined",
    re.IGNORECASE,
)
REFERS_BACK: Final = re.compile(  # to an answer that stands elsewhere
    r"\b(?:answer|result|solution)s? (?:is|are|was|were|stands?|has been) "
    r"(?:(?:already|given|shown|stated|found|written|derived|boxed|computed|as) ){0,3}"
    r"(?:above|earlier|before|in (?:my|the) (?:thinking|thoughts|reasoning))\b|"
    r"\bsee (?:\w+ ){0,2}above\b|\bsiehe oben\b|\bvoir (?:ci-dessus|plus haut)\b|"
    r"\b(?:antwort|lösung|ergebnis) (?:steht|ist|wurde) (?:\w+ ){0,2}oben\b|"
    r"\b(?:réponse|solution) (?:est|se trouve|figure) (?:\w+ ){0,2}(?:ci-dessus|plus haut)\b|"
    r"\b(?:respuesta|solución) (?:está|aparece|se da) (?:\w+ ){0,2}arriba\b|"
    r"\b(?:resposta|solução) (?:está|foi|aparece) (?:\w+ ){0,2}acima\b|"
    r"\bответ (?:\w+ ){0,2}выше\b|\bđáp (?:án|số) (?:\w+ ){0,3}ở trên\b|"
    r"答案(?:就|已经?)?(?:在|见|如|給在|给在)(?:上面|上文|上述|前面)|答えは?(?:上記|上の|上に)|답은? ?위(?:에|와)",
    re.IGNORECASE,
)
SHORT_VERDICT: Final = re.compile(r"\b(?:yes|no|true|false|none|never|always|impossible)\b", re.IGNORECASE)
# English words that cannot end a sentence: a text that stops after one was cut.
DANGLING: Final = re.compile(
    r"\b(?:the|an|of|that|and|or|because|with|from|by|than|is|are|was|were|we|let|which|into|if|where|when|its|"
    r"(?:by|of|with|to|in|from|for|as|on|into|and|or) a)\Z",
    re.IGNORECASE,
)
# The same in other languages, at the end of a response; of Japanese and Korean the particles behind a noun.
DANGLING_IN: Final[dict[str, re.Pattern[str]]] = {
    language: re.compile(rf"(?:{words})\Z", re.IGNORECASE)
    for language, words in {
        "de": r"\b(?:und|oder|der|die|das|dem|den|des|ein|eine|einen|einer|mit|von|zur|zum|für|dass|weil|wenn|als|ist|"
        r"sind|wird|durch|sowie)",
        "fr": r"\b(?:et|ou|le|la|les|de|du|des|un|une|que|qui|avec|pour|dans|par|est|sont|parce|car|au|aux)|"
        r"\b[ldcnsqj]['’]",
        "es": r"\b(?:y|o|el|la|los|las|de|del|un|una|que|con|por|para|en|es|son|porque|al|se|su)",
        "pt": r"\b(?:e|ou|o|a|os|as|de|do|da|dos|das|um|uma|que|com|por|para|em|no|na|são|porque|ao|se)",
        "vi": r"\b(?:và|hoặc|của|là|thì|với|cho|trong|những|các|một|bởi|vì|nhưng)",
        "ru": r"\b(?:и|или|в|на|с|к|из|для|по|от|до|что|как|но|а|не|это|который|которая|чтобы|потому)",
        "ar": r"\b(?:و|أو|في|من|إلى|على|عن|أن|التي|الذي|هو|هي)",
        "hi": r"(?:^|\s)(?:और|या|का|की|के|में|से|को|पर|कि|एक)",
        "th": r"(?:เท่ากับ|และ|หรือ|ของ|เพราะ|โดย|ซึ่ง|เป็น)",
        "ja": r"(?<=[\w）」])(?:でき|ており|であり|られ|となり|になり|して|"
        r"は|が|を|に|と|で|も|から|ので|および|また、|は、|が、|で、)",
        "ko": r"\w(?:은|는|을|를|의|와|과|에서|그리고)",
        "zh": r"(?:，|、|的|和|与|是|在|因为|所以|而且|以及)",
    }.items()
}
WITHOUT_STOPS: Final = frozenset({"th"})  # languages whose sentences end in a letter: that says nothing about a cut
# Two answers to choose from, said behind them.
# Politeness at the end, which answers nothing.
COURTESY: Final = re.compile(
    r"希望.{0,8}(?:帮|幫|用)|お役に立て|도움이 되|\bhope (?:this|that|it) helps|\bhoffe,? (?:das|es) hilft|"
    r"\bespero que (?:te |le |isso |esto )?(?:ayude|sirva|ajude)|\bj['’]espère que|надеюсь|hy vọng|أتمنى|आशा है|หวังว่า",
    re.IGNORECASE,
)
PICK: Final = re.compile(
    r"\b(?:pick|choose|take|use|select) (?:whichever|either|one|the one|any)\b|\bwhichever\b|"
    r"\beither (?:one|of (?:them|these|the two))\b|\bnot sure which\b|\b(?:am|['’]m) not sure\b",
    re.IGNORECASE,
)
PICK_REACH: Final = 100  # characters behind the last box in which that counts (guess)
CUT_TAG: Final = re.compile(
    r"</(?:a|an|ans|answ|answe|answer|t|th|thi|thin|think)?$|<(?:a|an|ans|answ|answe|answer|t|th|thi|thin|think)$"
)
MIN_CUT_CHARS: Final = 12  # of a response that a dangling word cuts: a shorter one may be that word (guess)
ANSWERS_BY: Final = re.compile(r"[\d$\\=*|]")  # signs of an answer among the last words
MIN_STOPPED_CHARS: Final = 40  # of a response that stops in words: a shorter one may be a line (guess)
MIN_LIST_COMMAS: Final = 4  # of a last line that is an enumeration (guess)
MIN_LAST_WORDS: Final = 4  # of its last line (guess)
OPEN_FORMULA: Final = re.compile(r"\$[^$\n]{0,80}\\[A-Za-z]+[^$\n]{0,60}$")
DISPLAYS: Final = ((r"\[", r"\]"), (r"\(", r"\)"), (r"\begin{", r"\end{"))
PROSE_DOMAINS: Final = frozenset({Domain.MATH, Domain.STEM, Domain.QA, Domain.LOGIC})
# A last line that goes on after a full stop, for four words or more, and stops in a small letter.
CUT_LINE: Final = re.compile(r"[^\W\d_]\. (?=[A-ZÀ-ÞĐА-Я])(?:[^\W\d_]+(?:['’-][^\W\d_]+)*,? ){4,60}[^\W\d_]{1,15}$")
WHOLE_END: Final = re.compile(r"[.!?。！？)}\]$*]\Z")
HEDGE: Final = re.compile(
    r"\b(?:unless it (?:is|was)|à moins que ce ne soit|es sei denn,? (?:es|sie) (?:ist|wäre)|"
    r"a (?:menos|no ser) que sea|a (?:menos|não ser) que seja|если только не)\b|"  # "unless x = 0" is none
    r"\b(?:alternatively|or maybe|or perhaps|perhaps|maybe|either|(?:could|may|might)(?: also)? be|another possib\w+|"
    r"not sure|i guess|or possibly|oder|vielleicht|möglicherweise|ou peut-être|peut-être|ou bien|o quizás|quizás?|"
    r"wait|actually|on second thoughts?|something (?:else|different)|correction|"
    r"tal vez|o bien|ou talvez|talvez|или|возможно|может быть|hoặc|có thể là|có lẽ)\b|"
    r"\b(?:wenn man (?:es )?anders|andernfalls|eine andere (?:Antwort|Lösung)|"
    r"(?:une )?autre (?:réponse|solution|possibilité)|"
    r"otra (?:respuesta|solución|posibilidad)|outra (?:resposta|solução)|другой ответ|"
    r"một (?:đáp số|kết quả|đáp án) khác|alternativ\w*)\b|另一(?:个|個)?答案|別の答え|다른 답|"
    r"إجابة أخرى|दूसरा उत्तर|อีกคำตอบ|"
    r"也可能|或者|也许|或許|または|もしくは|あるいは|かもしれ|또는|혹은|"
    r"아니면|어쩌면|أو|ربما|या|शायद|หรือ|อาจจะ",
    re.IGNORECASE,
)
EITHER_OR: Final = re.compile(
    r"\beither (?:\w{1,9} ){0,4}\$?\\boxed\{[^{}]{1,60}\}\$?,? or (?:\w{1,9} ){0,4}\$?\\boxed", re.IGNORECASE
)
EITHER_REACH: Final = 48  # characters before the first box in which it begins
PART_LABEL: Final = re.compile(r"\([a-e]\)|\([ivx]{1,4}\)|\bpart\b", re.IGNORECASE)
HEDGE_REACH: Final = 200  # characters before a box in which a hedge counts (guess)


def find_truncation(view: View) -> Finding | None:
    """A limit ended it; or, where the engine's word is not known, a part that must be closed is not."""
    end = len(view.text)
    if view.finish_reason in (FinishReason.LENGTH, FinishReason.ABORT):
        return Finding(Reason.TRUNCATED, end, end)
    if view.finish_reason is FinishReason.STOP:
        return None  # the engine says that it ended by itself: a part left open is malformed, not cut
    is_word = view.format is not TraceFormat.ZERO and "<answer>" in view.problem  # the tag is under discussion
    answers = [] if is_word else [tag for tag in view.tags if tag.name == "answer"]
    if view.format is not TraceFormat.ZERO and view.think is not None and view.think.end is not None:
        answers = [tag for tag in answers if tag.start >= view.response.start]
    if view.think is not None and view.think.end is None:
        return None if answers or _is_closed_wrongly(view) else Finding(Reason.TRUNCATED, view.think.start, end)
    if answers and not answers[-1].is_closing and sum(not tag.is_closing for tag in answers) == 1:
        return Finding(Reason.TRUNCATED, answers[-1].start, end)
    boxes = view.boxes
    if boxes and boxes[-1].outer.end is None:
        return Finding(Reason.TRUNCATED, boxes[-1].outer.start, end)
    fences = fence_starts(view.text, view.response.start) if view.has_fences else []
    if len(fences) % 2:
        return Finding(Reason.TRUNCATED, fences[-1], end)
    return _find_cut_sentence(view)


def _is_closed_wrongly(view: View) -> bool:
    """Return whether a second opening tag stands where the closing one should, and a whole answer behind it."""
    opened = [tag for tag in view.tags if tag.name == "think"]
    return len(opened) > 1 and WHOLE_END.search(view.text[opened[-1].end :].rstrip()) is not None


def _find_cut_sentence(view: View) -> Finding | None:
    """Where the engine's word is not known: the response stops in the middle of a sentence."""
    end = len(view.text)
    response = view.text[view.response.start :].rstrip()
    if ("<" in response[-12:] and CUT_TAG.search(response[-12:])) or any(
        response.count(a) > response.count(b) for a, b in DISPLAYS
    ):
        return Finding(Reason.TRUNCATED, end, end)
    if "\\$" in response:
        response = response.replace("\\$", "\\ ")  # a sum in dollars opens no formula
    if response.count("$$") % 2 and "\\" in response[response.rfind("$$") :]:
        return Finding(Reason.TRUNCATED, end, end)
    if view.domain is Domain.MATH and response.count("$") % 2 and OPEN_FORMULA.search(response[-160:]):
        return Finding(Reason.TRUNCATED, end, end)
    if view.domain in PROSE_DOMAINS and response.endswith(("=", ",", "(")) and "\\boxed" not in response:
        return Finding(Reason.TRUNCATED, end, end)
    may_be_cut = view.domain in PROSE_DOMAINS or view.domain is Domain.WRITING
    if may_be_cut and response[-1:].islower() and CUT_LINE.search(response[-400:]):
        return Finding(Reason.TRUNCATED, end, end)
    if response[-1:].isalpha() and DANGLING.search(response[-20:]):
        return Finding(Reason.TRUNCATED, end, end)
    dangling = DANGLING_IN.get(view.language)
    may_dangle = view.domain in PROSE_DOMAINS and len(response) >= MIN_CUT_CHARS and "\\boxed" not in response
    if dangling is not None and may_dangle and dangling.search(response[-24:]):
        return Finding(Reason.TRUNCATED, end, end)
    has_stops = view.language not in WITHOUT_STOPS
    if view.domain is Domain.MATH and has_stops and response[-1:].isalpha() and not _has_answer(view, response):
        return Finding(Reason.TRUNCATED, end, end)
    return Finding(Reason.TRUNCATED, end, end) if _stops_in_words(view, response) else None


def _stops_in_words(view: View, response: str) -> bool:
    """Return whether a mathematics response behind thinking has no marked answer and stops in words."""
    if view.domain is not Domain.MATH or view.think is None or len(response) < MIN_STOPPED_CHARS:
        return False
    last = response.rsplit("\n", 1)[-1]
    words = last.split()
    if not last[-1:].isalpha() or len(words) < MIN_LAST_WORDS or ANSWERS_BY.search(" ".join(words[-3:])):
        return False
    is_list = last.count(",") + last.count("、") >= MIN_LIST_COMMAS
    return not is_list and "\\boxed" not in response and MARKER.search(response) is None


def find_malformed_tags(view: View) -> Finding | None:
    """The tags must be exactly those of the format, in order, spelt right, with nothing outside them."""
    for tag in view.tags:
        if not tag.is_canonical and (tag.name == "think" or view.format is TraceFormat.ZERO):
            return Finding(Reason.MALFORMED_TAGS, tag.start, tag.end)
    thinks = [tag for tag in view.tags if tag.name == "think"]
    wanted = {TraceFormat.PLAIN: [], TraceFormat.R1_PREFILLED: [True]}.get(view.format, [False, True])
    found = [tag.is_closing for tag in thinks]
    if found != wanted:
        odd = next((tag for tag, want in zip(thinks, wanted, strict=False) if tag.is_closing != want), None)
        odd = odd or (thinks[len(wanted)] if len(thinks) > len(wanted) else None)
        return Finding(Reason.MALFORMED_TAGS, odd.start if odd else 0, odd.end if odd else 0)
    if wanted[:1] == [False] and view.text[: thinks[0].start].strip():
        return Finding(Reason.MALFORMED_TAGS, 0, thinks[0].start)
    return _find_malformed_answer_tags(view) if view.format is TraceFormat.ZERO else None


def _find_malformed_answer_tags(view: View) -> Finding | None:
    """Zero format: after the thinking one answer block, or several (another rule's matter), and nothing else."""
    answers = [tag for tag in view.tags if tag.name == "answer"]
    position = view.response.start
    if answers and answers[0].start < position:
        return Finding(Reason.MALFORMED_TAGS, answers[0].start, answers[0].end)
    for index, tag in enumerate(answers):
        if tag.is_closing != bool(index % 2):
            return Finding(Reason.MALFORMED_TAGS, tag.start, tag.end)
        if not tag.is_closing and view.text[position : tag.start].strip():
            return Finding(Reason.MALFORMED_TAGS, position, tag.start)
        position = tag.end
    if answers and view.text[position:].strip():
        return Finding(Reason.MALFORMED_TAGS, position, len(view.text))
    return None


def find_empty_think(view: View) -> Finding | None:
    """There is a thinking part and nothing in it: spaces, punctuation, N/A."""
    if view.think is None or view.think.end is None:
        return None
    thought = view.text[view.think.start : view.think.end]
    if len(list(islice(filter(str.isalpha, thought[:HEAD_CHARS]), 2 * MIN_THOUGHT_LETTERS))) > MIN_THOUGHT_LETTERS + 2:
        return None
    thought = INVISIBLE.sub(" ", thought)
    if DIGIT.search(thought) and not NOT_A_THOUGHT.fullmatch(thought):
        return None
    letters = list(islice(filter(str.isalpha, thought), MIN_THOUGHT_LETTERS))
    num_letters = sum(1 if letter < "\u1100" else 2 for letter in letters)  # a Chinese or Korean letter says more
    if num_letters < MIN_THOUGHT_LETTERS or NOT_A_THOUGHT.fullmatch(thought):
        return Finding(Reason.EMPTY_THINK, view.think.start, view.think.end)
    return None


def answer_blocks(view: View) -> list[Span]:
    """Return the insides of the answer tags, in order."""
    answers = [tag for tag in view.tags if tag.name == "answer" and tag.start >= view.response.start]
    return [
        Span(first.end, second.start)
        for first, second in pairwise(answers)
        if not first.is_closing and second.is_closing
    ]


def find_missing_answer(view: View) -> Finding | None:
    """The response must hold something, and in mathematics something that can be an answer."""
    blocks = answer_blocks(view)
    start, end = blocks[-1] if blocks else view.response
    assert end is not None
    part = view.text[start:end]
    if view.format is TraceFormat.ZERO and not blocks:
        part = ""
    is_drawn = view.domain is not Domain.MATH and len(part.split()) >= 3  # lines of signs
    is_empty = SOMETHING.search(part) is None and not is_drawn and not ("```" in part and part.strip(" \n`"))
    if not is_empty and (view.domain is not Domain.MATH or _has_answer(view, part)):
        return None
    thought = view.text[view.think.start : view.think.end] if view.think else ""
    in_think = find_boxes(thought) or MARKER.search(thought)
    reason = Reason.ANSWER_ONLY_IN_THINK if in_think else Reason.MISSING_ANSWER
    return Finding(reason, start, end)


def _has_answer(view: View, part: str) -> bool:
    """Return whether a text of a mathematics response can hold an answer: a number, a formula, a marked word."""
    if len(part) > ANSWER_HEAD + ANSWER_TAIL:
        part = f"{part[:ANSWER_HEAD]}\n{part[-ANSWER_TAIL:]}"
    if DIGIT.search(part) or MATH_IN_TEXT.search(EMPTY_BOX.sub("", part)):
        return True
    if any(BLANK.fullmatch(part[box.inner.start : box.inner.end]) is None for box in find_boxes(part)):
        return True
    if EMPTY_BOX.search(part):
        return NUMBER_WORD.search(part) is not None or UNDETERMINED.search(part) is not None
    if REFERS_BACK.search(part):
        return False
    if MARKER.search(part) or "**" in part or NUMBER_WORD.search(part) or UNDETERMINED.search(part):
        return True
    if view.language == "en" and SHORT_VERDICT.search(part):
        return True
    thought = view.text[view.think.start : view.think.end] if view.think else ""
    boxes = find_boxes(thought)
    if boxes and boxes[-1].inner.end is not None:  # a word boxed in the thinking and repeated here
        boxed = as_words(thought[boxes[-1].inner.start : boxes[-1].inner.end])
        if boxed and boxed in part.casefold():
            return True
    is_short = "\\boxed" not in part and len(part.split()) <= 3 and (part.isascii() or len(part.strip()) <= 12)
    return not boxes and is_short and COURTESY.search(part) is None  # "odd", "Jessica won": a bare answer in words


def find_multiple_answers(view: View) -> Finding | None:
    """Several answer blocks; or boxes that differ where the words between them hedge."""
    blocks = answer_blocks(view)
    if len(blocks) > 1:
        return Finding(Reason.MULTIPLE_ANSWERS, blocks[1].start, blocks[-1].end)
    boxes = [box for box in view.boxes if box.inner.end is not None]
    if len(boxes) < 2:
        return None
    if EITHER_OR.search(view.text, max(view.response.start, boxes[0].outer.start - EITHER_REACH)):
        return Finding(Reason.MULTIPLE_ANSWERS, boxes[0].outer.start, boxes[-1].outer.end)
    first = normal_form(view.text[boxes[0].inner.start : boxes[0].inner.end])
    for before, box in pairwise(boxes):
        assert before.outer.end is not None
        if normal_form(view.text[box.inner.start : box.inner.end]) == first:
            continue
        start = max(before.outer.end, box.outer.start - HEDGE_REACH)
        between = view.text[start : box.outer.start]
        if HEDGE.search(between) and not PART_LABEL.search(between):
            return Finding(Reason.MULTIPLE_ANSWERS, box.outer.start, box.outer.end)
        assert box.outer.end is not None
        if box is boxes[-1] and PICK.search(view.text, box.outer.end, box.outer.end + PICK_REACH):
            return Finding(Reason.MULTIPLE_ANSWERS, boxes[0].outer.start, box.outer.end)
    return None
