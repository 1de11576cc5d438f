"""Whether a trace says the problem again instead of solving it, goes on as another speaker, or refuses.

Two readability checks. Words of a dialogue that the task asks for, and apologies inside a story, pass.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from schemas.problem import Domain
from schemas.verdict import Reason
from verifiers.extract import find_boxes
from verifiers.view import Finding, View, code_spans

CONTROL_TOKEN: Final = re.compile(
    r"<\|(?:im_start|im_end|im_sep|endoftext|end_of_text|begin_of_text|eot_id|eom_id|start_header_id|end_header_id|user|"
    r"assistant|system|end|eos|bos|pad|endofprompt|startoftext|endofthinking|fim_prefix|fim_suffix|fim_middle)\|>|"
    r"<[｜|](?:begin▁of▁sentence|end▁of▁sentence|User|Assistant|tool▁\w{1,30})[｜|]>|"
    r"\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?s>(?=\s|$|<|\[)|<bos>|<eos>"
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
TURN: Final = re.compile(
    r"^[ \t#*]{0,6}(?:User|Human|Question|Q|Problem|USER|HUMAN|用户|問題|問|问题|Пользователь|Utilisateur|Benutzer|Nutzer|Usuario|"
    r"Usuário|사용자|المستخدم|Người dùng|ผู้ใช้)[ \t*]{0,3}[:：]",
    re.MULTILINE,
)
REPLY: Final = re.compile(
    r"^[ \t#*]{0,6}(?:Assistant|AI|Answer|A|ASSISTANT|助手|回答|答|Solution|Ассистент|Asistente|Assistente|어시스턴트|المساعد|Trợ lý|ผู้ช่วย)"
    r"[ \t*]{0,3}[:：]|<think>",
    re.MULTILINE,
)
DIALOGUE: Final = re.compile(
    r"dialog|conversation|script|screenplay|interview|chat|transcript|exchange|role.?play|user|对话|對話|会話|대화|диалог|"
    r"diálogo|حوار|संवाद|hội thoại|บทสนทนา",
    re.IGNORECASE,
)
NOT_LETTERS: Final = re.compile(r"[\W_]+")
# What one of the above needs in the text, as substrings: most texts have none.
TOKEN_MARKS: Final = ("<|", "<｜", "INST]", "SYS>>", "_of_turn>", "s>", "os>")
TURN_MARKS: Final = ("User", "Human", "Question", "Problem", "Q:", "Q ", "USER", "HUMAN")
MIN_PROBLEM_LETTERS: Final = 12  # a shorter problem is repeated in passing (guess)
MAX_ECHOES: Final = 2  # of the whole problem: restating it once and once more is thinking (note on readability, 3.3)
PROBE_CHARS: Final = 24


def find_echo(view: View) -> Finding | None:
    """Return a control token, another turn, a template's preamble, or the problem in place of an answer."""
    return _token_or_preamble(view) or _another_turn(view) or _problem_again(view)


def _token_or_preamble(view: View) -> Finding | None:
    text = view.text.rstrip()
    matches = [match for match in CONTROL_TOKEN.finditer(text)] if any(mark in text for mark in TOKEN_MARKS) else []
    for preamble in PREAMBLES:
        if (place := text.find(preamble)) >= 0:
            matches += PREAMBLE.finditer(text, place, place + len(preamble))
    code = code_spans(text) if matches else []
    for match in matches:
        is_code = any(start <= match.start() < end for start, end in code)
        if match.end() < len(text) and not is_code and match[0] not in view.problem:
            return Finding(Reason.PROMPT_ECHO, match.start(), match.end())
    return None


def _another_turn(view: View) -> Finding | None:
    """Another question after the answer: a speaker's name, and a reply or an end behind it."""
    if view.domain is Domain.WRITING or DIALOGUE.search(view.problem):
        return None
    start = view.response.start
    if view.text.isascii() and not any(mark in view.text for mark in TURN_MARKS):
        return None
    for match in TURN.finditer(view.text, start):
        before = view.text[start : match.start()]
        if not any(map(str.isalnum, before)) or before.count("```") % 2:
            continue
        is_name_of_user = match[0].strip(" \t#*:：") in ("User", "USER", "Human", "HUMAN", "用户")
        if is_name_of_user or REPLY.search(view.text, match.end()):
            return Finding(Reason.PROMPT_ECHO, match.start(), len(view.text))
    return None


def _problem_again(view: View) -> Finding | None:
    """The thinking or the response is the problem and nothing else, or the problem stands there three times."""
    problem = _plain_problem(view.problem)
    if len(problem) < MIN_PROBLEM_LETTERS:
        return None
    middle = view.problem.strip()
    probe = middle[len(middle) // 2 : len(middle) // 2 + PROBE_CHARS]
    for part in view.parts:
        if len(part.text) <= 2 * len(view.problem) + 40 and _plain(part.text) == problem:
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


@lru_cache(maxsize=256)
def _plain_problem(problem: str) -> str:
    return _plain(problem)


def _plain(text: str) -> str:
    return NOT_LETTERS.sub("", text).casefold()


# --- refusals ---------------------------------------------------------------------------------------------------------
_CANNOT: Final = (
    r"(?:can(?:no|['’])t|can not|cannot|am unable to|am not able to|won['’]t|will not|must decline|have to decline)"
)
_HELP: Final = (
    r"(?:help|assist|answer|provide|comply|respond|fulfil\w*|do (?:that|this)|continue|discuss|engage|solve|complete|"
    r"support|share|give|offer|create|generate|write|process|participate|decline)"
)
REFUSAL: Final = re.compile(
    rf"(?:i['’]?m (?:very |so |really )?sorry|i am sorry|sorry|i apologi[sz]e|my apologies|unfortunately)\b[^.\n]{{0,60}}?\b(?:i|we) {_CANNOT} "
    rf"(?:\w+ ){{0,2}}{_HELP}\b|"
    rf"(?:i|we) {_CANNOT} {_HELP}\b|as an? (?:ai|artificial|large|language)\b[^.\n]{{0,60}}?\b(?:i|we) (?:{_CANNOT}|do not|don['’]t)|"
    r"i(?:['’]m| am) (?:just )?an ai\b[^.\n]{0,60}|"
    r"(?:this|that|your) (?:request|question)\b[^.\n]{0,40}\b(?:against|violates)\b|"
    r"(?:非常|很)?(?:抱歉|对不起|對不起)[^。\n]{0,30}(?:不能|无法|無法|不可以|不会)|我(?:不能|无法|無法)(?:回答|提供|协助|帮助|协助|完成|满足|處理|处理)|"
    r"(?:大変)?(?:申し訳|もうしわけ|すみません|ごめんなさい|恐れ入りますが)[^。\n]{0,50}(?:できません|できかねます|お答えでき|お手伝いでき|致しかねます|いたしかねます|対応でき)|"
    r"(?:その|この)?(?:ご)?(?:質問|依頼|要望|リクエスト)に(?:は)?(?:お)?(?:答え|応え|対応)[^。\n]{0,12}(?:できません|できかねます)|"
    r"(?:정말 |대단히 )?(?:죄송|미안)[^.\n]{0,50}(?:없습니다|못합니다|수 없|어렵습니다)|"
    r"(?:к сожалению|извините|простите|прошу прощения|приношу извинения)[^.\n]{0,60}(?:не могу|не в состоянии|не смогу|вынужден)|я не могу (?:помочь|ответить|выполнить|предоставить|обсуждать)|"
    r"(?:je suis (?:vraiment )?d[ée]sol[ée]e?|d[ée]sol[ée]e?|malheureusement|je regrette)[^.\n]{0,60}je ne (?:peux|suis|puis)|je ne peux pas (?:vous )?(?:aider|r[ée]pondre|fournir)|"
    r"(?:es tut mir (?:sehr )?leid|tut mir leid|leider|entschuldigung)[^.\n]{0,60}(?:kann ich|ich kann|nicht (?:helfen|beantworten|m[öo]glich|in der lage))|ich kann (?:ihnen |dir )?(?:dabei |damit )?nicht (?:helfen|antworten)|"
    r"(?:lo siento|lamento|lo lamento|disculpa|perd[óo]n|desafortunadamente)[^.\n]{0,60}no (?:puedo|me es posible|estoy)|no puedo (?:ayudar|responder|proporcionar|cumplir)|"
    r"(?:desculpe|sinto muito|lamento|infelizmente|pe[çc]o desculpas?)[^.\n]{0,60}n[ãa]o (?:posso|consigo|[ée] poss[íi]vel|estou)|n[ãa]o posso (?:ajudar|responder|fornecer)|"
    r"(?:عذر|آسف|اعتذر|أعتذر|نعتذر|للأسف|المعذرة)[^.\n]{0,60}(?:لا (?:أستطيع|يمكنني|استطيع|يمكننا)|لن أتمكن|غير قادر)|لا (?:أستطيع|يمكنني) (?:المساعدة|الإجابة|مساعدتك)|"
    r"(?:क्षमा|माफ़|माफ|खेद|मुझे खेद)[^।\n]{0,60}(?:नहीं|असमर्थ)|मैं [^।\n]{0,40}(?:मदद|उत्तर|सहायता) नहीं|"
    r"(?:xin lỗi|rất tiếc|tôi rất tiếc|thành thật xin lỗi)[^.\n]{0,60}(?:không thể|không được phép)|tôi không thể (?:giúp|trả lời|hỗ trợ|cung cấp)|"
    r"(?:ขออภัย|ขอโทษ|เสียใจ)[^\n]{0,60}(?:ไม่สามารถ|ไม่ได้)|(?:ฉัน|ผม|ดิฉัน)ไม่สามารถ(?:ช่วย|ตอบ|ให้)",
    re.IGNORECASE,
)
REFUSAL_MARKS: Final = (  # of the formulas that can be written in ASCII
    *(
        "sorry",
        "apolog",
        "unfortunately",
        "cannot",
        "can't",
        "can not",
        "unable",
        "not able",
        "won't",
        "decline",
        "an ai",
    ),
    *("as a", "against", "violates", "je ne p", "je regrette", "malheureusement", "leid", "leider", "entschuldigung"),
    *("kann", "siento", "lamento", "disculpa", "perdon", "puedo", "desculpe", "infelizmente", "posso"),
)
APOLOGY: Final = re.compile(r"apolog|refus|declin|excus|sorry|regret|reject", re.IGNORECASE)
REFUSAL_START: Final = 160  # characters of the response in which a refusal begins (guess)
MAX_REFUSAL_CHARS: Final = 900  # a longer response does something else, too (guess)
OPENING: Final = re.compile(r"[\s*_>#]{0,20}(?:<answer>)?[\s*_>#]{0,20}", re.IGNORECASE)


def find_refusal(view: View) -> Finding | None:
    """Return a refusal that the response begins with, where no solution follows."""
    if view.domain is Domain.WRITING and APOLOGY.search(view.problem):
        return None
    start = view.response.start
    begin = OPENING.match(view.text, start)
    place = begin.end() if begin else start
    response = view.text[place:]
    if not response or response[0] in "\"“«「‘'" or len(response) > MAX_REFUSAL_CHARS:
        return None
    head = response[: REFUSAL_START + 160]
    if head.isascii() and not any(mark in head.lower() for mark in REFUSAL_MARKS):
        return None
    match = REFUSAL.search(head)
    if match is None or match.start() > REFUSAL_START or find_boxes(response) or "```" in response:
        return None
    if match.start() > 0 and any(mark in response[: match.start()] for mark in '"“«「'):
        return None
    return Finding(Reason.REFUSAL, place + match.start(), place + match.end())
