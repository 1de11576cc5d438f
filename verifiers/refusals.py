"""How a refusal begins, in the languages that traces are made in: formulas, as patterns without case.

Data for ``echo``. A formula says that the speaker cannot or will not do what was asked; an apology alone is none.
"""

from __future__ import annotations

import re
from typing import Final

_CANNOT: Final = (
    r"(?:(?:i|we) (?:can(?:no|['’])t|can not|(?:won['’]t|will not)(?: be able to)?|must|have to|am unable to|"
    r"am not able to|do not|don['’]t)|"
    r"i['’]m (?:unable|not able) to)"
)
_HELP: Final = (
    r"(?:help|assist|answer|provide|comply|respond|fulfil\w*|do (?:that|this)|continue|discuss|engage|solve|complete|"
    r"support|share|give|offer|create|generate|write|process|participate|decline)"
)
_SORRY: Final = r"(?:(?:i['’]?m|i am) (?:very |so |really )?sorry|sorry|i apologi[sz]e|my apologies|unfortunately)"

FORMULAS: Final[dict[str, tuple[str, ...]]] = {
    "en": (
        rf"{_SORRY}\b[^.\n]{{0,60}}?\b{_CANNOT} (?:\w+ ){{0,2}}{_HELP}\b",
        rf"{_CANNOT} {_HELP}\b",
        rf"as an? (?:ai|artificial|large|language)\b[^.\n]{{0,60}}?\b{_CANNOT}"
        r"(?! (?:really |actually )?(?:feel|experience|have (?:\w+ )?(?:feelings|emotions|bod\w+|senses|"
        r"favou?rites?|taste)))",
        rf"\bi (?:would rather|['’]?d rather|would prefer|['’]?d prefer|prefer) (?:to )?not(?: to)? (?:\w+ )?{_HELP}\b",
        r"\bi (?:won['’]t|will not) be (?:answering|helping|discussing|doing|writing|solving|translating)\b",
        r"\Ano comment\b",
        rf"{_SORRY}\b[^.\n]{{0,80}}\b(?:isn['’]t|is not|not) (?:possible|permitted|allowed|an option|available)\b",
        r"\bi(?:['’]m| am) going to (?:have to )?(?:pass on|skip|decline|stop)\b",
        r"\bi(?:['’]ll| will) (?:have to )?(?:pass on|decline)\b",
        r"\bi['’]d (?:rather|prefer) (?:to )?not(?: to)? (?:say|answer|do|talk|go)\b",
        r"(?:isn['’]t|is not|not) (?:something|a (?:topic|request|task|question)) (?:that )?"
        r"i(?:['’]m| am| can| will| want)\b",
        r"\bmy (?:guidelines|policy|policies|rules|instructions|programming|training)\b[^.\n]{0,20}"
        r"\b(?:don['’]t|do not|doesn['’]t|does not|prevents?|prohibits?|forbids?|won['’]t)\b",
        r"\b(?:i['’]m|i am) not (?:permitted|allowed|willing|comfortable|authori[sz]ed|going to (?:help|answer|do))\b",
        r"\b(?:beyond|outside) (?:of )?(?:what i(?:['’]m| am)|my) (?:permitted|allowed|able|scope|guidelines|remit)\b",
        r"\byou['’]ll (?:have|need) to (?:find|look|ask|try|go)\b[^.\n]{0,40}\b"
        r"(?:elsewhere|somewhere else|someone else)\b",
        r"(?:i['’]m|i am) (?:just )?an ai\b",
        r"(?:this|that|your) (?:request|question)\b[^.\n]{0,40}\b(?:against|violates)\b",
    ),
    "zh": (
        r"(?:抱歉|对不起|對不起)[^。\n]{0,30}(?:不能|无法|無法|不可以|不会)",
        r"我(?:不能|无法|無法|不便|不方便|不愿意?|不想|拒绝)(?:回答|提供|协助|帮助|完成|满足|處理|处理|讨论)",
    ),
    "ja": (
        r"(?:申し訳|もうしわけ|すみません|ごめんなさい|恐れ入りますが)[^。\n]{0,50}"
        r"(?:できません|できかねます|お答えでき|お手伝いでき|致しかねます|いたしかねます|対応でき)",
        r"(?:回答|お答え|コメント)(?:は|を)?(?:差し)?控え",
        r"(?:質問|依頼|要望|リクエスト)に(?:は)?(?:お)?(?:答え|応え|対応)[^。\n]{0,12}(?:できません|できかねます)",
    ),
    "ko": (
        r"(?:죄송|미안)[^.\n]{0,50}(?:없습니다|못합니다|수 없|어렵습니다)",
        r"(?:답변|대답|도움)[^.\n]{0,12}(?:드릴 수 없|드리기 어렵|할 수 없)",
    ),
    "ru": (
        r"(?:к сожалению|извините|простите|прошу прощения|приношу извинения)[^.\n]{0,60}"
        r"(?:не могу|не в состоянии|не смогу|вынужден)",
        r"я (?:не могу|не буду|не хочу|отказываюсь|предпочту не|предпочитаю не) "
        r"(?:помо|отвеча|ответить|выполн|предостав|обсужда|реша)",
    ),
    "fr": (
        r"(?:d[ée]sol[ée]e?|malheureusement|je regrette)[^.\n]{0,60}je ne (?:peux|suis|puis)",
        r"je (?:ne peux pas|ne souhaite pas|pr[ée]f[èe]re ne pas|refuse de) "
        r"(?:vous |t['’]|y )?(?:aider|r[ée]pondre|fournir|parler)",
        r"je ne suis pas (?:autoris[ée]e?|en mesure|dispos[ée]e?)",
    ),
    "de": (
        r"(?:tut mir (?:sehr )?leid|leider|entschuldigung)[^.\n]{0,60}"
        r"(?:kann ich|ich kann|nicht (?:helfen|beantworten|m[öo]glich|in der lage))",
        r"ich (?:kann|möchte|darf|werde) (?:ihnen |dir )?(?:dabei |damit |dazu |darauf )?(?:leider )?"
        r"(?:nicht (?:helfen|antworten)|nichts sagen)",
        r"(?:dazu|damit|darüber|dabei) (?:kann|möchte|darf|werde) ich (?:\w+ ){0,2}(?:nichts|nicht)",
    ),
    "es": (
        r"(?:lo siento|lamento|disculpa|perd[óo]n|desafortunadamente)[^.\n]{0,60}no (?:puedo|me es posible|estoy)",
        r"(?:no puedo|no voy a|prefiero no|no quiero) (?:ayudar|responder|proporcionar|cumplir|contestar|hablar)",
    ),
    "pt": (
        r"(?:desculpe|sinto muito|lamento|infelizmente|pe[çc]o desculpas?)[^.\n]{0,60}"
        r"n[ãa]o (?:posso|consigo|[ée] poss[íi]vel|estou)",
        r"(?:n[ãa]o posso|n[ãa]o vou|prefiro n[ãa]o) (?:ajudar|responder|fornecer|falar)",
    ),
    "ar": (
        r"(?:عذر|آسف|اعتذر|أعتذر|نعتذر|للأسف|المعذرة)[^.\n]{0,60}"
        r"(?:لا (?:أستطيع|يمكنني|استطيع|يمكننا)|لن أتمكن|غير قادر)",
        r"لا (?:أستطيع|يمكنني) (?:المساعدة|الإجابة|مساعدتك)",
    ),
    "hi": (r"(?:क्षमा|माफ़|माफ|खेद)[^।\n]{0,60}(?:नहीं|असमर्थ)", r"मैं [^।\n]{0,40}(?:मदद|उत्तर|सहायता) नहीं"),
    "vi": (
        r"(?:xin lỗi|rất tiếc)[^.\n]{0,60}(?:không thể|không được phép)",
        r"tôi (?:không thể|không muốn|xin phép không|từ chối) (?:giúp|trả lời|hỗ trợ|cung cấp)",
    ),
    "th": (
        r"(?:ขออภัย|ขอโทษ|เสียใจ)[^\n]{0,60}(?:ไม่สามารถ|ไม่ได้)",
        r"(?:ฉัน|ผม|ดิฉัน)ไม่สามารถ(?:ช่วย|ตอบ|ให้)",
    ),
}
REFUSAL: Final = re.compile("|".join(formula for formulas in FORMULAS.values() for formula in formulas), re.IGNORECASE)
MARKS: Final = (  # of the formulas that can be written in ASCII: a text without any has no refusal
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
    *("rather not", "prefer", "something i", "topic", "request", "task i", "question i", "my guidelines", "my polic"),
    *("my rules", "my instructions", "my programming", "my training", "i'm not", "i am not", "beyond", "outside"),
    *("you'll have", "you'll need", "prefiero", "prefiro", "quiero", "dazu", "damit", "dabei", "nicht", "nichts"),
    *(
        "going to pass",
        "going to have to",
        "going to skip",
        "going to stop",
        "ll pass",
        "will pass",
        "will have to",
        "ll have to",
    ),
    *("will not be", "no comment", "no voy", "souhaite", "refuse de", "i’", "you’ll"),
    *("as an ai", "as an artificial", "as a large", "as a language", "as a artificial", "as a ai", "as an l"),
    *("against", "violates", "je ne p", "je regrette", "malheureusement", "leid", "leider", "entschuldigung"),
    *("kann", "siento", "lamento", "disculpa", "perdon", "puedo", "desculpe", "infelizmente", "posso"),
)
