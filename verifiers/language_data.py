"""What tells languages apart without a model: scripts, function words, names of languages.

Data for ``languages`` and its parts. Function words are chosen to be telling: a word that is common in two of the
languages written in Latin letters is in neither list, or in both.
"""

from __future__ import annotations

import re
from typing import Final

# --- scripts ----------------------------------------------------------------------------------------------------------
SCRIPT_RANGES: Final = {
    "latin": "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
    "greek": "\u0370-\u03ff\u1f00-\u1fff",
    "cyrillic": "\u0400-\u052f",
    "armenian": "\u0531-\u058f",
    "hebrew": "\u0590-\u05ff",
    "arabic": "\u0600-\u065f\u066e-\u06ef\u06fa-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff",
    "devanagari": "\u0900-\u0963\u0970-\u097f",
    "bengali": "\u0980-\u09ff",
    "tamil": "\u0b80-\u0bff",
    "telugu": "\u0c00-\u0c7f",
    "thai": "\u0e00-\u0e3e\u0e40-\u0e4e",
    "georgian": "\u10a0-\u10ff",
    "hangul": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "kana": "\u3040-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d",
    "other": "\u0a00-\u0b7f\u0c80-\u0dff\u0e80-\u109f\u1200-\u139f\u13a0-\u13ff\u1780-\u18af\u2d30-\u2d7f\ua000-\ua4cf",
    "han": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f",
}
LANGUAGE_SCRIPTS: Final[dict[str, frozenset[str]]] = {
    "zh": frozenset({"han"}),
    "ja": frozenset({"han", "kana"}),
    "ko": frozenset({"hangul"}),
    "ru": frozenset({"cyrillic"}),
    "uk": frozenset({"cyrillic"}),
    "bg": frozenset({"cyrillic"}),
    "ar": frozenset({"arabic"}),
    "fa": frozenset({"arabic"}),
    "ur": frozenset({"arabic"}),
    "he": frozenset({"hebrew"}),
    "hi": frozenset({"devanagari"}),
    "mr": frozenset({"devanagari"}),
    "bn": frozenset({"bengali"}),
    "ta": frozenset({"tamil"}),
    "te": frozenset({"telugu"}),
    "th": frozenset({"thai"}),
    "el": frozenset({"greek"}),
    "ka": frozenset({"georgian"}),
    "hy": frozenset({"armenian"}),
}
LATIN: Final = frozenset({"latin"})
GREEK_ACCENTS: Final = "άέήίόύώΆΈΉΊΌΎΏϊϋΐΰ"
# Characters that Chinese writes all the time and Japanese does not (simplified forms, pronouns, particles).
CHINESE_ONLY: Final = re.compile(
    r"[这们吗呢么没还时对说为个来样计题应该条边长设则给两从后问确认简单结论终间进将让请吧啊呀她它"
    r"哪您谁把被嗎麼個們這說來樣還沒對時為從後問認單結論終間進將讓請誰]|"
    r"我们|因此|所以|可以|如果|但是|已经|我們|可能|就是|不是|什么"
)
HAN_IN_JAPANESE: Final = re.compile(r"[時対間進従単結終誰問認論]")  # forms that Japanese has too


# --- function words ---------------------------------------------------------------------------------------------------
def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_WORDS: Final[dict[str, frozenset[str]]] = {
    "en": _words(
        "about after again all also an and answer any are as at be because been being both but by can check could "
        "did do does doesn't don't each equals every first for from get given gives got had has have he her here "
        "him his how i'll i'm i've if into is isn't it it's its just know let let's like make many may maybe "
        "means might more most much must my need next not now of okay on one only or other per same she should "
        "since so such sure than that that's the their them then there there's these they think this those to too "
        "total two us very wait want was we we'll we're we've were what when where which who whose will with "
        "would you your"
    ),
    "de": _words(
        "aber alle als also am auch auf aus bei beiden daher damit dann das dass dem den der des deshalb diese "
        "dieser dieses dort durch ein eine einem einen einer ergibt es für gilt haben hat hier ich ihr im ist "
        "jedoch jetzt kann kein keine lautet mehr mit muss müssen nach nicht noch nun nur oder schon sehr sich "
        "sie sind somit sowie und uns von wenn werden wie wir wird zu zuerst zum zur zwischen über"
    ),
    "fr": _words(
        "ainsi alors au aussi aux avec avoir avons bien c'est ce cela ces cette chaque comme d'abord d'un d'une "
        "dans des deux donc du elle encore ensuite entre est et fait faut il ils j'ai je l'on le les maintenant "
        "mais même n'y ne nombre nous obtient on ou où par pas peut plus pour puis qu'il que qui reste sa se ses "
        "son sont sous sur tous toutes très tu une valeur voici vous être"
    ),
    "es": _words(
        "ahora al así cada como con cuando debemos del después donde dos el en entonces es esta este estos está "
        "están hasta hay las lo los luego muy más nos nuestra número para pero podemos por porque que resultado "
        "se ser si sin sobre solo son su sus también tanto tenemos todas todos una valor y ya"
    ),
    "pt": _words(
        "agora ao as assim até cada com como da das depois devemos do dois dos duas e em então esta este está "
        "isso já mais mas na nas no nos nosso não número o onde os para pela pelo podemos por porque quando que "
        "resultado se sem ser seu sobre sua são só também tanto temos todas todos um uma valor você à às é"
    ),
    "it": _words(
        "abbiamo alla allora anche che come con così dalla dei del della delle di dove due e gli il la lo ma nel "
        "nella non numero ogni ora per perché più poi possiamo quando questa questo quindi senza si sono su tutti "
        "una valore è"
    ),
    "vi": _words(
        "ba bước bằng cho chúng các có cũng của do hai khi không kết là lại mà một như những này nên nếu phải quả "
        "ra rằng sẽ số ta theo thì trong tính tại từ và vào vậy với án đáp đã đó được để ở"
    ),
    "nl": _words("aan dan dat deze dit dus een en hebben het is maar met niet nu ook op van voor we wij wordt zijn"),
    "id": _words("adalah akan atau dan dapat dari dengan di dua ini itu jadi ke kita maka pada tidak untuk yang"),
    "tr": _words("bir bu buna da de değil gibi göre her iki ile ise için kadar olan olarak sonra ve şimdi şu"),
    "pl": _words("ale czy dla do dwa i jak jest mamy na nie od oraz po przez się są teraz to w więc z że"),
}
# What is said in passing, with the function words the stuff of short remarks: "Das ist klar", "Muy bien".
COMMON_WORDS: Final[dict[str, frozenset[str]]] = {
    "en": _words(
        "okay actually right good done correct wrong really double look again yes no sure fine easy hello thanks great "
        "perfect nice well hmm see sum me say try go come back think thought wait got true false exactly indeed "
        "a simple clear clearly step work works out here second "
        "minute moment time bit sense makes verify confirm recheck"
    ),
    "de": _words(
        "klar gut richtig falsch fertig stimmt passt genau moment warte mal nein ja danke bitte hallo gute guten nacht "
        "morgen tag lösung antwort ergebnis rechnung prüfen rechnen sehen leicht einfach wahr sicher natürlich "
        "weiter zurück schauen bin doch etwas alles nichts war wäre so auch mir mich dir fällt heißt bedeutet"
    ),
    "fr": _words(
        "bien sûr voilà fini terminé d'accord exact exactement vrai faux bon bonne attends attendez voyons regardons "
        "parfait simple facile réponse résultat calcul ça oui non merci bonjour bonsoir nuit je pense suis peux "
        "correct correcte juste besoin vérifier voir dire fin de la que"
    ),
    "es": _words(
        "bien claro listo lista perfecto correcto correcta cierto falso fácil bueno buena buenas buenos noches días "
        "tardes gracias hola sí espera veamos vamos ver eso la respuesta resultado solución acuerdo exacto aquí tengo "
        "creo una vez verdad hecho a no sencillo hacer decir esto de el me te lo"
    ),
    "pt": _words(
        "bem muito certo correto clara claro pronto perfeito fácil bom boa noite dia obrigado olá sim espere vejamos "
        "vamos ver a resposta resultado está aqui acho verdade feito simples fazer dizer é "
        "de que no se o me te lo"
    ),
    "it": _words(
        "bene molto certo giusto corretto chiaro perfetto facile finito fatto ecco buona buongiorno sera grazie ciao "
        "sì aspetta vediamo risposta risultato va tutto qui semplice bisogna fare la che di un"
    ),
    "nl": _words("goed klaar klopt juist makkelijk antwoord wacht dank hallo zien ja nee we kijken eens even"),
    "id": _words(
        "baik benar salah selesai mudah tunggu terima kasih jawaban jawabannya hasilnya tiga empat lima enam tujuh "
        "delapan sembilan puluh ratus kita lihat"
    ),
    "pl": _words("dobrze tak jest odpowiedź wynik gotowe łatwe poczekaj sprawdźmy zobaczmy mamy"),
    "tr": _words("tamam evet hayır doğru cevap sonuç kolay bekle bakalım şimdi"),
}
# English words that are keywords of programs, and stand in prose about them.
KEYWORDS: Final = _words(
    "if is not none in for while and or else elif return true false null new try except catch finally with as import "
    "from class def function var let const lambda yield async await do break continue pass this self void int switch "
    "case"
)
# Of other languages, and at home in all of them.
BORROWED_PHRASES: Final = frozenset(
    (
        "c'est la vie",
        "que sera sera",
        "qué será será",
        "bon voyage",
        "mamma mia",
        "hasta la vista",
        "à la carte",
        "en passant",
        "en bloc",
        "fait accompli",
        "no problem",
        "if and only if",
        "et voilà",
        "adiós amigo",
    )
)
# English words that are function words elsewhere: no sign of another language in English.
ALSO_ENGLISH: Final = _words("due plus sin son die come pour war hat man solo media dos par sera non")
# Words that a language has, too, which stand above as words of others alone: they show no other language.
ALSO_OWN: Final[dict[str, frozenset[str]]] = {
    "en": _words("am bin dove even exact fin met per"),
    "es": _words("da dan entre fin le les par total tu un van ve"),
    "fr": _words("as but dit dos en es mal me met or sera si te total un va"),
    "pt": _words("entre mal ou par si total tu uns vez"),
    "it": _words("da de en falso fine le lo me media ne no solo sono tanto te total tu"),
    "de": _words("all an da dank die her los man nie per plus total um was will"),
}
# Words of one language and no other: one of them in prose is enough.
TELLING: Final[dict[str, str]] = {
    word: language
    for language, words in {
        "de": _words(
            "lautet überprüfen ebenfalls schließlich ergebnis deshalb gleichung lösung daher allerdings jedoch "
            "natürlich zunächst daraus berechnen außerdem weil folglich beziehungsweise nämlich ergibt"
        ),
        "fr": _words(
            "vérifions alors finalement réponse voilà donc donnée c'est-à-dire puisque maintenant parce ensuite "
            "calculons"
        ),
        "es": _words("pues verificamos obtenemos luego después calculamos también respuesta porque además entonces"),
        "pt": _words("obtemos resposta não além então portanto também você"),
        "it": _words("perché dunque risposta quindi"),
        "en": _words("actually because therefore doesn't let's that's we'll would"),
        "vi": _words("những vậy được chúng không"),
    }.items()
    for word in words
}
# Names of languages as Vietnamese writes them, behind "tiếng".
NAMES_BEHIND_TIENG: Final = {
    "anh": "en",
    "pháp": "fr",
    "đức": "de",
    "nhật": "ja",
    "hàn": "ko",
    "trung": "zh",
    "hoa": "zh",
    "nga": "ru",
    "tây ban nha": "es",
    "bồ đào nha": "pt",
    "ý": "it",
    "thái": "th",
    "ả rập": "ar",
    "việt": "vi",
}
VIETNAMESE: Final = re.compile(r"[ạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹđơưĐƠƯ]")
PINYIN_TONES: Final = re.compile(r"[āēīōūǖǎěǐǒǔǚǘǜ]")
# Letters with marks that a language writes itself, in small letters: they do not speak for another one.
OWN_ACCENTS: Final = {
    "fr": "àâæçéèêëîïôœùûüÿ",
    "de": "äöüß",
    "es": "áéíñóúü",
    "pt": "áàâãçéêíóôõúü",
    "vi": VIETNAMESE.pattern[1:-1] + "àáâãèéêìíòóôõùúýăĩũ",
}
PINYIN: Final = re.compile(  # one word: some syllables
    r"(?:(?:zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw])?(?:iang|iong|uang|ang|eng|ing|ong|ian|iao|uai|uan|ai|ei|ao|ou|an|en|in|un|ia|ie|iu|"
    r"ua|ui|uo|ue|a|e|i|o|u)r?){1,4}"
)

# --- names of languages, as a task writes them ------------------------------------------------------------------------
LANGUAGE_NAMES: Final[dict[str, str]] = {
    name: language
    for language, names in {
        "en": _words(
            "อังกฤษ الإنجليزية английский ingles английского अंग्रेजी inglês inglés 英语 englisch 英文 अंग्रेज़ी "
            "英語 inglese anglais 영어 english английском"
        ),
        "zh": _words(
            "漢語 चीनी 汉语 chinese จีน 중국어 chinês китайский الصينية mandarin chinesisch 普通话 chinois chino "
            "中国語 中文"
        ),
        "ja": _words(
            "일본어 japanese 日本語 ญี่ปุ่น японский 日语 اليابانية japanisch जापानी 日文 japonais japonés japonês"
        ),
        "ko": _words("корейский 韩语 korean कोरियाई coréen 한국어 韓国語 koreanisch เกาหลี coreano الكورية"),
        "ru": _words("russian russe русский русском 俄语 ロシア語 ruso russo रूसी 러시아어 الروسية russisch รัสเซีย"),
        "ar": _words("العربية arabisch arabe アラビア語 อาหรับ arabic 阿拉伯语 अरबी 아랍어 árabe арабский"),
        "hi": _words("हिन्दी 印地语 хинди 힌디어 हिंदी الهندية ฮินดี hindi ヒンディー語"),
        "fr": _words(
            "फ्रेंच französisch french 法文 法语 الفرنسية ฝรั่งเศส 프랑스어 フランス語 французский francese "
            "francés francês français फ़्रेंच французском"
        ),
        "de": _words(
            "ドイツ語 немецком alemán เยอรมัน 독일어 tedesco alemão 德语 deutsch الألمانية german allemand जर्मन "
            "德文 немецкий"
        ),
        "es": _words(
            "スペイン語 스페인어 spagnolo สเปน spanisch испанском स्पेनिश الإسبانية 西班牙语 espanhol español "
            "испанский spanish espagnol"
        ),
        "pt": _words(
            "البرتغالية portugiesisch португальский โปรตุเกส 葡萄牙语 पुर्तगाली portuguese 포르투갈어 portugais "
            "portugués ポルトガル語 português portoghese"
        ),
        "it": _words(
            "italiano الإيطالية イタリア語 อิตาลี italienisch italian italien 意大利语 итальянский 이탈리아어 इतालवी"
        ),
        "vi": _words(
            "vietnamien vietnamita vietnamesisch vietnamese tiếng_việt เวียดนาม ベトナム語 베트남어 вьетнамский 越南语"
        ),
        "th": _words("тайский tailandés ไทย 태국어 タイ語 泰语 التايلاندية tailandês thaï थाई thai thailändisch"),
        "la": _words("latein latim latín 拉丁语 latin ラテン語 латинский"),
        "el": _words("griechisch grego 希腊语 greek греческий griego grec ギリシャ語"),
        "he": _words("hebraico иврит hebreo hébreu 希伯来语 ヘブライ語 hebrew hebräisch"),
        "nl": _words("holandés нидерландский オランダ語 niederländisch néerlandais 荷兰语 holandês dutch"),
        "tr": _words("türkisch 土耳其语 turco トルコ語 turc турецкий turkish"),
        "pl": _words("polaco польский 波兰语 polnisch polish ポーランド語 polonais"),
        "uk": _words("украинский ウクライナ語 ucraniano ukrainian ukrainien ukrainisch 乌克兰语"),
        "fa": _words("персидский farsi persisch 波斯语 persan ペルシャ語 persa persian"),
        "sv": _words("sueco suédois swedish шведский schwedisch 瑞典语"),
        "id": _words("indonésien indonesian 印尼语 indonesisch インドネシア語 indonesio"),
    }.items()
    for name in names
}
