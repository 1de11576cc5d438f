"""Whether a trace says the problem again instead of solving it, goes on as another speaker, or refuses.

Two readability checks. Words of a dialogue that the task asks for, and apologies inside a story, pass.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice
from typing import Final

from schemas.problem import Domain
from schemas.verdict import Reason
from verifiers.refusals import MARKS, REFUSAL
from verifiers.view import Cover, Finding, View, code_spans, holds

CONTROL_TOKEN: Final = re.compile(
    r"<\|(?:im_start|im_end|im_sep|endoftext|end_of_text|begin_of_text|eot_id|eom_id|start_header_id|end_header_id|user|"
    r"assistant|system|end|eos|bos|pad|endofprompt|startoftext|endofthinking|fim_prefix|fim_suffix|fim_middle)\|>|"
    r"<[｜|](?:begin▁of▁sentence|end▁of▁sentence|User|Assistant|tool▁\w{1,30})[｜|]>|"
    r"\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|^<s>|</s>\s*\Z|<bos>|<eos>"
)
PREAMBLES: Final = (
    "A conversation between User and Assistant",
    "The user asks a question, and the Assistant solves it",
    "Please reason step by step, and put your final answer within \\boxed",
    "You are a helpful assistant",
    "Below is an instruction that describes a task",
    "### Instruction:",
    "### Response:",
)
PREAMBLE: Final = re.compile("|".join(map(re.escape, PREAMBLES)))
TURN: Final = re.compile(  # from line break to line break: an answer stands before it
    r"\n[ \t#*]{0,6}(?:User|Human|Question|Q|USER|HUMAN|用户|問題|問|问题|Пользователь|Utilisateur|"
    r"Benutzer|Nutzer|Usuario|Usuário|사용자|المستخدم|Người dùng|ผู้ใช้)[ \t*]{0,3}[:：]"
)
REPLY: Final = re.compile(
    r"^[ \t#*]{0,6}(?:Assistant|AI|Answer|A|ASSISTANT|助手|回答|答|Solution|Ассистент|Asistente|Assistente|"
    r"어시스턴트|المساعد|Trợ lý|ผู้ช่วย)"
    r"[ \t*]{0,3}[:：]|<think>",
    re.MULTILINE,
)
DIALOGUE: Final = re.compile(
    r"dialog|conversation|script|screenplay|interview|chat|transcript|exchange|role.?play|user|对话|對話|会話|대화|диалог|"
    r"diálogo|حوار|संवाद|hội thoại|บทสนทนา",
    re.IGNORECASE,
)
ANSWER_TAG: Final = re.compile(r"</?answer>", re.IGNORECASE)
FIRST_WORD: Final = re.compile(r"[^\W_]{1,40}")
NOT_LETTERS: Final = re.compile(r"[\W_]+")
# What one of the above needs in the text, as substrings: most texts have none.
TOKEN_MARKS: Final = ("<|", "<｜", "SYS>>", "_of_turn>", "s>")
ANSWERED: Final = re.compile(r"\d|\\boxed|[.!?。]\s|[^\x00-\x7f]{4}")  # something was said before
MAX_TURNS: Final = 200  # that are looked at
TURN_REACH: Final = 4_000  # characters within which a reply follows
MIN_PROBLEM_LETTERS: Final = 12  # a shorter problem is repeated in passing (guess)
MAX_ECHOES: Final = 2  # of the whole problem: restating it once and once more is thinking (note on readability, 3.3)
PROBE_CHARS: Final = 24


def find_echo(view: View) -> Finding | None:
    """Return a control token, another turn, a template's preamble, or the problem in place of an answer."""
    return _token_or_preamble(view) or _another_turn(view) or _problem_again(view)


def _token_or_preamble(view: View) -> Finding | None:
    text = view.text.rstrip()
    may_have = (view.has_angles and any(map(text.__contains__, TOKEN_MARKS))) or ("[" in text and "INST]" in text)
    matches = list(CONTROL_TOKEN.finditer(text)) if may_have else []
    for preamble in PREAMBLES:
        if holds(text, preamble):
            place = text.find(preamble)
            matches += PREAMBLE.finditer(text, place, place + len(preamble))
    code = Cover(code_spans(text) if matches else ())
    for match in matches:
        is_code = code.holds(match.start(), match.start())
        if not is_code and match[0] not in view.problem:
            return Finding(Reason.PROMPT_ECHO, match.start(), match.end())
    return None


def _another_turn(view: View) -> Finding | None:
    """Another question after the answer: a speaker's name, and a reply or an end behind it."""
    start = view.response.start
    if TURN.search(view.text, start) is None or view.domain is Domain.WRITING or DIALOGUE.search(view.problem):
        return None
    code = Cover(code_spans(view.text))
    answered = ANSWERED.search(view.text, start)
    for match in islice(TURN.finditer(view.text, start), MAX_TURNS):
        place = match.start() + 1
        if code.holds(place, place) or answered is None or answered.end() > place:
            continue
        is_name_of_user = match[0].strip(" \t#*:：\n") in ("User", "USER", "Human", "HUMAN", "用户")
        if is_name_of_user or REPLY.search(view.text, match.end(), match.end() + TURN_REACH):
            return Finding(Reason.PROMPT_ECHO, place, len(view.text))
    return None


def _problem_again(view: View) -> Finding | None:
    """The thinking or the response is the problem and nothing else, or the problem stands there three times."""
    problem = _plain_problem(view.problem)
    if not problem:
        return None
    middle = view.problem.strip()
    probe = middle[len(middle) // 2 : len(middle) // 2 + PROBE_CHARS]
    for part in view.parts:
        if len(part.text) <= 2 * len(view.problem) + 40 and _is_the_problem(part.text, problem):
            return Finding(Reason.PROMPT_ECHO, part.start, part.start + len(part.text), 1, 0)
        if part.text.count(probe) <= MAX_ECHOES:
            continue
        num_echoes = _plain(part.text).count(problem)
        if num_echoes > MAX_ECHOES:
            first = part.text.find(probe)
            return Finding(
                Reason.PROMPT_ECHO, part.start + first, part.start + part.text.rfind(probe), num_echoes, MAX_ECHOES
            )
    return None


def _is_the_problem(text: str, problem: str) -> bool:
    """Return whether a text is the problem and nothing else; most show by their first word that they are not."""
    if "<" in text:
        text = ANSWER_TAG.sub("", text)
    first = FIRST_WORD.search(text)
    return first is not None and problem.startswith(first[0].casefold()) and _plain(text) == problem


@lru_cache(maxsize=256)
def _plain_problem(problem: str) -> str:
    """Return its letters and digits; nothing where it is too short. A letter of Chinese says as much as two."""
    plain = _plain(problem)
    return plain if len(plain) + sum(letter >= "\u1100" for letter in plain) >= MIN_PROBLEM_LETTERS else ""


def _plain(text: str) -> str:
    return NOT_LETTERS.sub("", text).casefold()


# --- refusals ---------------------------------------------------------------------------------------------------------
APOLOGY: Final = re.compile(r"apolog|refus|declin|excus|sorry|regret|reject", re.IGNORECASE)
REFUSAL_START: Final = 160  # characters of the response in which a refusal begins (guess)
MAX_REFUSAL_CHARS: Final = 900  # a longer response does something else, too (guess)
OPENING: Final = re.compile(r"[\s*_>#]{0,20}(?:<answer>)?[\s*_>#]{0,20}", re.IGNORECASE)


def find_refusal(view: View) -> Finding | None:
    """Return a refusal that the response begins with, where no solution follows."""
    if view.domain is Domain.WRITING and APOLOGY.search(view.problem):
        return None
    if view.domain is Domain.TRANSLATION and REFUSAL.search(view.problem):
        return None
    if view.boxes:  # a solution follows
        return None
    start = view.response.start
    begin = OPENING.match(view.text, start)
    place = begin.end() if begin else start
    response = view.text[place:]
    if not response or response[0] in "\"“«「‘'" or len(response) > MAX_REFUSAL_CHARS:
        return None
    head = response[: REFUSAL_START + 160]
    small = head.lower()
    if head.isascii() and not any(map(small.__contains__, MARKS)):
        return None
    match = REFUSAL.search(head)
    if match is None or match.start() > REFUSAL_START or "```" in response:
        return None
    if match.start() > 0 and any(mark in response[: match.start()] for mark in '"“«「'):
        return None
    return Finding(Reason.REFUSAL, place + match.start(), place + match.end())
