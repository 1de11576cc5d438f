"""What tells languages apart without a model: scripts, function words, names of languages.

Data for ``languages``. Function words are chosen to be telling: a word that is common in two of the languages written
in Latin letters is in neither list, or in both.
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
    "kana": "\u3040-\u30fa\u30fc-\u30ff\u31f0-\u31ff",
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
        "about after again all also an and answer any are as at be because been being both but by can check "
        "could did do does doesn't don't each equals every first for from get given gives got had has "
        "have he her here him his how i'll i'm i've if into is isn't it it's its just know let let's like "
        "make many may maybe means might more most much must my need next not now of okay on one "
        "only or other per same she should since so such sure than that that's "
        "the their them then there there's these they think this those to too total two us very wait want was "
        "we we'll we're we've were what when where which who whose will with would you your"
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
# English words that are function words elsewhere: no sign of another language in English.
ALSO_ENGLISH: Final = _words("due plus sin son die come pour war hat man solo media dos par sera non")
# Words of one language and no other: one of them in prose is enough.
TELLING: Final[dict[str, str]] = {
    word: language
    for language, words in {
        "de": _words(
            "zunächst überprüfen schließlich folglich ebenfalls beziehungsweise jedoch außerdem nämlich berechnen "
            "natürlich allerdings lautet deshalb gleichung ergibt daraus"
        ),
        "fr": _words("puisque vérifions maintenant calculons c'est-à-dire finalement ensuite voilà donc parce"),
        "es": _words("además entonces después luego también verificamos porque calculamos"),
        "pt": _words("também portanto você então além não"),
        "it": _words("dunque quindi perché"),
        "vi": _words("không những chúng được"),
    }.items()
    for word in words
}
VIETNAMESE: Final = re.compile(r"[ạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹđơưĐƠƯ]")
PINYIN_TONES: Final = re.compile(r"[āēīōūǖǎěǐǒǔǚǘǜ]")
PINYIN: Final = re.compile(  # one word: some syllables
    r"(?:(?:zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw])?(?:iang|iong|uang|ang|eng|ing|ong|ian|iao|uai|uan|ai|ei|ao|ou|an|en|in|un|ia|ie|iu|"
    r"ua|ui|uo|ue|a|e|i|o|u)r?){1,4}"
)

# --- names of languages, as a task writes them ------------------------------------------------------------------------
LANGUAGE_NAMES: Final[dict[str, str]] = {
    name: language
    for language, names in {
        "en": _words(
            "الإنجليزية english englisch अंग्रेज़ी anglais 英語 inglese 英文 영어 английском английского อังกฤษ "
            "inglês 英语 अंग्रेजी ingles английский inglés"
        ),
        "zh": _words(
            "中国語 汉语 chino mandarin chinois chinês 중국어 中文 จีน चीनी chinese китайский الصينية chinesisch "
            "普通话 漢語"
        ),
        "ja": _words(
            "日本語 ญี่ปุ่น 日文 japonais japonês اليابانية japanese japanisch 일본어 日语 जापानी японский japonés"
        ),
        "ko": _words("koreanisch coréen 韩语 韓国語 корейский 한국어 coreano الكورية korean कोरियाई เกาหลี"),
        "ru": _words("러시아어 russe русском russo ruso ロシア語 रूसी russian รัสเซีย 俄语 russisch русский الروسية"),
        "ar": _words("अरबी арабский árabe อาหรับ arabe アラビア語 arabisch 아랍어 arabic 阿拉伯语 العربية"),
        "hi": _words("हिंदी 힌디어 hindi ฮินดี हिन्दी ヒンディー語 الهندية 印地语 хинди"),
        "fr": _words(
            "法文 französisch french francês ฝรั่งเศส французском الفرنسية फ़्रेंच français फ्रेंच 프랑스어 法语 "
            "フランス語 французский francese francés"
        ),
        "de": _words(
            "tedesco जर्मन 독일어 德文 德语 немецком الألمانية немецкий deutsch alemão german allemand ドイツ語 "
            "เยอรมัน alemán"
        ),
        "es": _words(
            "spanisch स्पेनिश espagnol испанский español 西班牙语 spanish 스페인어 espanhol испанском الإسبانية "
            "spagnolo สเปน スペイン語"
        ),
        "pt": _words(
            "पुर्तगाली portoghese 葡萄牙语 โปรตุเกส ポルトガル語 portuguese португальский portugais português "
            "portugués البرتغالية portugiesisch 포르투갈어"
        ),
        "it": _words(
            "意大利语 イタリア語 итальянский อิตาลี الإيطالية italienisch italian italiano इतालवी italien 이탈리아어"
        ),
        "vi": _words(
            "vietnamese vietnamita vietnamien tiếng_việt вьетнамский 越南语 베트남어 เวียดนาม vietnamesisch ベトナム語"
        ),
        "th": _words("泰语 thaï ไทย tailandês थाई tailandés thai التايلاندية тайский 태국어 タイ語 thailändisch"),
        "la": _words("latim latein latín ラテン語 latin 拉丁语 латинский"),
        "el": _words("griego grec греческий griechisch ギリシャ語 grego greek 希腊语"),
        "he": _words("hébreu иврит ヘブライ語 hebrew 希伯来语 hebreo hebräisch hebraico"),
        "nl": _words("dutch holandés нидерландский niederländisch holandês 荷兰语 néerlandais オランダ語"),
        "tr": _words("türkisch 土耳其语 турецкий turco turkish トルコ語 turc"),
        "pl": _words("波兰语 польский polnisch polish polonais polaco ポーランド語"),
        "uk": _words("ウクライナ語 ukrainian ukrainien украинский 乌克兰语 ucraniano ukrainisch"),
        "fa": _words("persan farsi ペルシャ語 persian персидский persisch persa 波斯语"),
        "sv": _words("шведский schwedisch suédois swedish sueco 瑞典语"),
        "id": _words("印尼语 indonésien indonesio インドネシア語 indonesisch indonesian"),
    }.items()
    for name in names
}
