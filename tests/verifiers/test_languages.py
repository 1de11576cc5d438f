"""Languages: foreign scripts and sentences in thinking and response, what a problem lets in, and the consistency."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.problem import Domain
from schemas.verdict import Check, Outcome, Reason, TextDetail, Verdict
from verifiers import latin_pieces, latin_rows
from verifiers.language_data import COMMON_WORDS, FUNCTION_WORDS
from verifiers.latin import latin_language
from verifiers.latin_words import (
    EVERYDAY,
    LATIN_WORD,
    MAX_TOKENS_KEPT,
    ODD,
    OWN,
    TONED,
    TONES,
    Tokens,
    TokenTable,
    having,
    with_capitals,
)
from verifiers.readability import judge_trace

ENGLISH = (
    "We look for the number of pairs. Each pair is counted twice, so we divide by two. "
    "The Cauchy–Schwarz inequality and the work of Erdős and Poincaré are not needed here.\n\n"
    "With θ = π/3 and ℵ or Ш as symbols, $\\alpha + \\beta = 4$. That is all we need to know about it.\n"
)
SENTENCES = {
    "zh": "这一步没有问题，我们可以继续计算下面的结果。",
    "ja": "それでは、この式をもう一度確認しましょう。",
    "ko": "이제 두 값을 곱하면 답을 얻을 수 있습니다.",
    "ru": "Теперь осталось только сложить эти два числа.",
    "ar": "الآن نجمع العددين معا لنحصل على النتيجة.",
    "hi": "अब हम इन दोनों संख्याओं को जोड़ते हैं।",
    "th": "ต่อไปเราจะบวกจำนวนทั้งสองเข้าด้วยกัน",
    "fr": "Nous avons donc trouvé la réponse et il ne reste plus que la dernière étape.",
    "de": "Jetzt müssen wir noch die beiden Zahlen miteinander multiplizieren.",
    "es": "Ahora tenemos que sumar los dos números para obtener el resultado.",
    "pt": "Agora temos que somar os dois números para obter o resultado.",
    "vi": "Bây giờ chúng ta cộng hai số này lại với nhau để có kết quả.",
    "en": "Now we have to add the two numbers to get the result of this.",
}
TEXTS = {
    "zh": "正方形的面积等于边长的平方，所以结果是 $9\\times 9 = 81$。我们使用 Python 风格的记号 x_1。",
    "ja": "正方形の面積は一辺の二乗なので、$9\\times 9 = 81$ です。次に面積計算を確認します。",
    "ko": "정사각형의 넓이는 한 변의 제곱이므로 $9\\times 9 = 81$ 입니다. 다시 확인해 보겠습니다.",
    "ru": "Площадь квадрата равна квадрату стороны, то есть $9\\times 9 = 81$. Это ответ на задачу.",
    "ar": "مساحة المربع تساوي مربع طول الضلع، أي أن $9\\times 9 = 81$ وهو الجواب.",
    "hi": "वर्ग का क्षेत्रफल भुजा के वर्ग के बराबर होता है, इसलिए $9\\times 9 = 81$ है।",
    "th": "พื้นที่สี่เหลี่ยมจัตุรัสเท่ากับด้านยกกำลังสอง ดังนั้น $9\\times 9 = 81$",
    "fr": "L'aire du carré est le carré du côté, donc nous avons $9\\times 9 = 81$. C'est la réponse.",
    "de": "Die Fläche des Quadrats ist das Quadrat der Seite, also gilt $9\\times 9 = 81$. So ist es.",
    "es": "El área del cuadrado es el cuadrado del lado, así que $9\\times 9 = 81$. Esta es la respuesta que buscamos.",
    "pt": "A área do quadrado é o quadrado do lado, então $9\\times 9 = 81$. Esta é a resposta que procuramos.",
    "vi": "Diện tích hình vuông bằng bình phương của cạnh, nên ta có $9\\times 9 = 81$. Đó là kết quả của bài toán.",
    "en": ENGLISH,
}


def verdict(think: str, response: str, language: str = "en", **more: object) -> Verdict:
    text = f"<think>\n{think}\n</think>\n\n{response}"
    return judge_trace(text, domain=more.pop("domain", "math"), language=language, format="r1", **more)


def check(think: str, response: str = "$\\boxed{4}$", language: str = "en", **more: object) -> Check:
    found = verdict(think, response, language, **more)
    return next(one for one in found.checks if one.name == "language")


@pytest.mark.parametrize("language", TEXTS)
def test_a_trace_in_its_own_language_passes(language: str) -> None:
    found = check(TEXTS[language], TEXTS[language] + " $\\boxed{81}$", language)
    assert (found.outcome, found.reason) == (Outcome.READABLE, None)


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("other", SENTENCES)
def test_one_sentence_of_another_language_is_found_where_it_stands(language: str, other: str) -> None:
    if language == other:
        return
    found = check(f"{TEXTS[language]}\n\n{SENTENCES[other]}\n\n{TEXTS[language]}", "$\\boxed{81}$", language)
    assert found.reason is Reason.LANGUAGE_MIXING
    assert found.start is not None
    assert found.end is not None
    assert found.start <= len("<think>\n") + len(TEXTS[language]) + 4 + len(SENTENCES[other]) // 2 + 40


@pytest.mark.parametrize("word", ["итого", "相遇", "結果", "결과", "النتيجة"])
def test_one_word_in_a_long_trace_is_found(word: str) -> None:
    assert check(ENGLISH * 40 + f"so {word} we are done. " + ENGLISH * 40).reason is Reason.LANGUAGE_MIXING


def test_words_hidden_in_a_formula_are_found() -> None:
    assert check(f"{ENGLISH} $N = 4 \\text{{所以}}$ as stated.").reason is Reason.LANGUAGE_MIXING


def test_thinking_and_response_may_have_languages_of_their_own() -> None:
    response = TEXTS["ja"] + " $\\boxed{81}$"
    assert check(ENGLISH, response, "ja").reason is Reason.LANGUAGE_MIXING
    assert check(ENGLISH, response, "ja", think_language="en").reason is None


@pytest.mark.parametrize(
    ("problem", "think", "response", "passes"),
    [
        ("Translate into Japanese: 'thank you'", "It is ありがとう.", "ありがとう", True),
        ("Translate into Spanish: 'Good morning, friends.'", "'friends' is amigos.", "Buenos días, amigos.", True),
        (
            "Translate into French: 'The train is late.'",
            f"Late is en retard. {SENTENCES['zh']}",
            "Le train est en retard.",
            False,
        ),
        ("Translate into Chinese: 'The soup is salty.'", f"Salty is 咸. {SENTENCES['fr']}", "汤是咸的。", False),
    ],
)
def test_a_translation_lets_in_its_own_languages_and_no_others(
    problem: str, think: str, response: str, passes: bool
) -> None:
    found = check(think, response, problem=problem, domain="translation")
    assert (found.reason is None) == passes


def test_code_quotes_and_names_are_not_counted() -> None:
    problem = "Explain what the German word 'Schadenfreude' means."
    text = (
        'It is joy (Freude) over harm (Schaden); one says "er hat Schadenfreude über das Pech der anderen" of someone.'
    )
    assert check(text, "Joy at the misfortune of others.", problem=problem, domain="qa").reason is None
    code = (
        "The loop is fine.\n```python\n# вычисляем сумму всех чисел\ntotal = sum(xs)\n```\nThat is all there is to it."
    )
    assert check(code, "Done.", domain="code").reason is None


def test_the_consistency_is_the_share_of_words_in_the_target_language() -> None:
    def consistency(think: str) -> float:
        details = [one.detail for one in verdict(think, "$\\boxed{4}$").checks if isinstance(one.detail, TextDetail)]
        return details[0].think_consistency

    assert consistency(ENGLISH) == 1.0
    mixed = consistency(ENGLISH + "\n\n" + SENTENCES["de"])
    assert 0.8 < mixed < 0.95  # 9 German words among some 70
    assert consistency(SENTENCES["ru"]) < 0.2


@pytest.mark.parametrize(
    ("language", "remark"),
    [
        ("en", "Das ist klar."),
        ("en", "Très bien."),
        ("en", "Khá đơn giản."),
        ("de", "Esto es fácil."),
        ("es", "Das stimmt so."),
        ("zh", "Let me check again."),
        ("ru", "Перевіримо, чи їх двоє."),
    ],
)
def test_a_short_remark_in_another_language_is_found(language: str, remark: str) -> None:
    def mixing(text: str) -> Check:
        verdict = judge_trace(f"<think>\n{text}\n</think>\n\n81", domain="math", language=language, format="r1")
        return next(check for check in verdict.checks if check.name == "language")

    assert mixing(TEXTS.get(language, ENGLISH)).outcome is Outcome.READABLE
    found = mixing(f"{TEXTS.get(language, ENGLISH)}\n\n{remark}")
    assert found.outcome is Outcome.UNREADABLE
    assert found.reason is Reason.LANGUAGE_MIXING


@pytest.mark.parametrize(
    "names", ["Los Angeles, La Paz and El Alto.", "Let die rolls be X.", "By de Moivre, i.e. per se."]
)
def test_names_and_words_that_look_foreign_are_none(names: str) -> None:
    text = f"<think>\n{ENGLISH}\n{names}\n</think>\n\n81"
    assert judge_trace(text, domain="math", language="en", format="r1").outcome is Outcome.READABLE


@pytest.mark.parametrize(
    "drawn",
    [
        "clip((xmin,ymin)--(xmin,ymax)--(xmax,ymax)--(xmax,ymin)--cycle);",
        "def separate_paren_groups(paren_string): return None",
        "pair A, B, C, D, W, X, Y, Z;",
    ],
)
def test_code_without_a_fence_is_no_other_language(drawn: str) -> None:
    text = f"<think>\n{ENGLISH}\n{drawn}\n</think>\n\n81"
    assert judge_trace(text, domain="math", language="en", format="r1").outcome is Outcome.READABLE


pieces = st.text(alphabet="aAtheifesd' -.,;:!?$\\\"«(бїのあ가ñéđ的1\n`\ud800", max_size=60)


@given(pieces, st.sampled_from(sorted({*SENTENCES, *FUNCTION_WORDS})), st.sampled_from(list(Domain)))
def test_any_text_in_any_language_gets_a_verdict(text: str, language: str, domain: Domain) -> None:
    verdict = judge_trace(f"<think>\n{text}\n</think>\n\n{text}", problem=text, domain=domain, language=language)
    assert verdict.outcome in (Outcome.READABLE, Outcome.UNREADABLE)


# --- what is asked first, so that the dearer question need not be asked --------------------------------------------
LATIN = ("en", "de", "fr", "es", "pt", "it", "vi", "nl", "id", "tr", "pl")
SAID = sorted({word for words in (*FUNCTION_WORDS.values(), *COMMON_WORDS.values()) for word in words})
said = st.sampled_from(SAID) | st.sampled_from(["x", "Lima", "conversión", "niño", "12", "=", "d'un", "(et", "l'aire,"])


@given(st.lists(said.flatmap(lambda word: st.sampled_from([word, word.capitalize(), f"{word},"])), max_size=14))
def test_a_sentence_that_its_tokens_show_to_be_own_is_found_in_no_other_language(tokens: list[str]) -> None:
    sentence = " ".join(tokens)
    for language in LATIN:
        if TONES.search(sentence.lower()) is None and latin_rows._is_mostly_own(tokens, language):
            words = LATIN_WORD.findall(sentence.lower())
            assert latin_language(sentence, words, language) == language


@given(st.lists(st.tuples(said, st.sampled_from([" ", ", ", ". ", "\n", "; ", "-", "'"])), max_size=30))
def test_every_piece_in_another_language_is_among_those_that_are_looked_at(said: list[tuple[str, str]]) -> None:
    text = "".join(word + mark for word, mark in said)
    for language in LATIN:
        tokens = Tokens.of(text)
        lines = tokens.lines_with(tokens.flags(language).translate(having(EVERYDAY | TONED)))
        looked_at = {match.span() for match in latin_pieces._pieces_with_others(text, lines, language)}
        for match in latin_pieces.PIECE.finditer(text):
            words = LATIN_WORD.findall(match[0])
            if 2 <= len(words) <= 6 and latin_pieces._language_of_piece(words, list(map(str.lower, words)), language):
                assert match.span() in looked_at


@given(st.text(alphabet="xy.\u3000 \n\t\r\x1f", max_size=40), st.data())
def test_tokens_are_found_where_they_stand(text: str, data: st.DataObject) -> None:
    tokens = Tokens.of(text)
    assert tokens.all == text.split()
    numbers = sorted(data.draw(st.sets(st.integers(0, len(tokens.all) - 1)))) if tokens.all else []
    places = [match.start() for match in re.finditer(r"\S+", text)]
    assert list(tokens.places(numbers)) == [places[number] for number in numbers]
    lines = [(match.start(), match.end()) for match in re.finditer(r"[^\n]+", text)]
    marked = bytes(number in numbers for number in range(len(tokens.all)))
    wanted = [line for line in lines if any(line[0] <= places[number] < line[1] for number in numbers)]
    assert list(tokens.lines_with(marked)) == wanted


OWN_SENTENCES = {
    "en": "The sum of these numbers is four, because both of them are even.",
    "de": "Die Summe dieser Zahlen ist für uns vier, weil beide gerade sind und größer als null.",
    "fr": "La somme de ces nombres est égale à quatre, car les deux sont pairs, où que l'on regarde.",
    "es": "La suma de los números es cuatro, porque los dos son pares y más grandes que el cero.",
    "pt": "A soma dos números é quatro, porque os dois são pares e não há outros além deles.",
    "it": "Il risultato è quattro, perché i due numeri sono pari e così la somma è più grande.",
    "vi": "Tổng của hai số này là bốn, vì cả hai đều là số chẵn và không có số nào khác.",
    "nl": "De som van deze getallen is vier, omdat ze allebei even zijn en één ervan groter is.",
    "id": "Jumlah kedua bilangan ini adalah empat, karena keduanya genap dan tidak ada yang lain.",
    "tr": "Bu sayı için sonuç doğru değil mi, buna göre şu kadar ve bir daha çok büyük.",
    "pl": "Wiemy, że liczby są parzyste, więc wynik się zgadza i nie ma już innych.",
}


@pytest.mark.parametrize("language", sorted(FUNCTION_WORDS))
def test_a_language_is_at_home_in_its_own_letters(language: str) -> None:
    tokens = Tokens.of(" ".join(sorted(with_capitals(language))))
    assert not any(flags & OWN and flags & ODD for flags in tokens.flags(language))
    said = "\n".join([OWN_SENTENCES[language]] * 2)
    trace = f"<think>\n{said}\n</think>\n\n$\\boxed{{4}}$"
    for domain in ("math", "qa"):
        checks = judge_trace(trace, problem=OWN_SENTENCES[language][:20], domain=domain, language=language).checks
        assert {check.name: check.reason for check in checks}["language"] is None


@pytest.mark.parametrize("domain", ["math", "qa"])
def test_a_row_of_another_language_is_seen_behind_a_sentence_of_names(domain: str) -> None:
    said = "Alice Bob Carol Dave Eve. Wir müssen die Summe aller Zahlen finden, und das ist nicht alles."
    trace = f"<think>\n{said}\nThe answer is 5.\n</think>\n\nThe answer is $\\boxed{{5}}$."
    check = next(check for check in judge_trace(trace, domain=domain, language="en").checks if check.name == "language")
    assert check.reason is Reason.LANGUAGE_MIXING
    assert check.start is not None
    assert trace[check.start :].startswith(" Wir müssen")


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        ("qa", "Nam nuzhno naiti summu vsekh chisel (sum of all the numbers) potomu otvet poka neizvesten."),
        ("writing", 'Tunahitaji kutafuta jumla "sum of the numbers" yake kwanza halafu jibu linakuwa tano.'),
    ],
)
def test_own_words_in_brackets_and_quotes_do_not_make_a_sentence_own(domain: str, said: str) -> None:
    trace = f"<think>\nWe have to find the sum of it. {said} So that is it.\n</think>\n\nThe answer is five."
    assert judge_trace(trace, domain=domain, language="en").reason is Reason.LANGUAGE_MIXING


def test_script_and_region_of_a_language_say_nothing_about_what_it_is() -> None:
    trace = "<think>\n等等，我们来计算这个和，二加三等于五。\n</think>\n\n答案是 $\\boxed{5}$。"
    said = [judge_trace(trace, problem="?", domain="math", language=name) for name in ("zh", "zh-CN", "zh-Hant-TW")]
    assert [verdict.reason for verdict in said] == [None] * 3
    assert len({verdict.checks[-1].detail for verdict in said}) == 1
    wrong = judge_trace(trace, problem="?", domain="math", language="en-US")
    assert wrong.reason is Reason.LANGUAGE_MIXING


def test_what_is_known_of_tokens_does_not_grow_without_end() -> None:
    table = TokenTable(len)
    assert [table[f"{number}"] for number in range(2 * MAX_TOKENS_KEPT)][-1] == 5
    assert len(table) <= MAX_TOKENS_KEPT
    assert table["x" * 1_000_000] == 1_000_000
    assert "x" * 1_000_000 not in table
