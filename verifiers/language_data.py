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
        "about after again all also an and answer any are as at be because been both but by can check could did "
        "do does doesn't don't each first for from get had has have here how i'll i'm i've if into is isn't it "
        "it's its just know let let's like make may maybe might more most must my need next not now of okay one "
        "only or other same should since so such sure than that that's the their them then there there's these "
        "they think this those to two us very wait want was we we'll we're we've were what when where which will "
        "with would you your"
    ),
    "de": _words(
        "aber alle als also am auch auf aus bei beiden daher damit dann das dass dem den der des deshalb diese "
        "dieser dieses dort durch ein eine einem einen einer ergibt es für gilt haben hat hier ich ihr im ist "
        "jedoch jetzt kann kein keine lautet mehr mit muss müssen nach nicht noch nun nur oder schon sehr sich "
        "sie sind somit sowie und uns von wenn werden wie wir wird zu zuerst zum zur zwischen über"
    ),
    "fr": _words(
        "ainsi alors au aussi aux avec avoir bien c'est ce cela ces cette chaque comme d'un d'une dans des deux "
        "donc du elle ensuite entre est et fait faut il ils l'on le les maintenant mais n'y ne nombre nous "
        "obtient on ou où par pas peut plus pour puis qu'il que qui sa se ses son sont sous sur tous toutes très "
        "une valeur voici vous être"
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
# Words of one language and no other: one of them in prose is enough.
TELLING: Final[dict[str, str]] = {
    word: language
    for language, words in {
        "de": _words(
            "deshalb daraus jedoch außerdem zunächst schließlich nämlich beziehungsweise folglich allerdings "
            "ebenfalls natürlich überprüfen berechnen ergibt lautet gleichung"
        ),
        "fr": _words("donc puisque ensuite maintenant voilà parce calculons vérifions finalement c'est-à-dire"),
        "es": _words("entonces también después calculamos verificamos además porque luego"),
        "pt": _words("então também não você portanto além"),
        "it": _words("quindi perché dunque"),
        "vi": _words("không được chúng những"),
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
            "english englisch anglais inglés ingles inglês inglese английский английском английского 英语 英文 "
            "英語 영어 الإنجليزية अंग्रेज़ी अंग्रेजी อังกฤษ"
        ),
        "zh": _words(
            "chinese mandarin chinesisch chinois chino chinês китайский 中文 汉语 漢語 普通话 中国語 중국어 "
            "الصينية चीनी จีน"
        ),
        "ja": _words(
            "japanese japanisch japonais japonés japonês японский 日语 日文 日本語 일본어 اليابانية जापानी ญี่ปุ่น"
        ),
        "ko": _words("korean koreanisch coréen coreano корейский 韩语 韓国語 한국어 الكورية कोरियाई เกาหลี"),
        "ru": _words("russian russisch russe ruso russo русский русском 俄语 ロシア語 러시아어 الروسية रूसी รัสเซีย"),
        "ar": _words("arabic arabisch arabe árabe арабский 阿拉伯语 アラビア語 아랍어 العربية अरबी อาหรับ"),
        "hi": _words("hindi хинди 印地语 ヒンディー語 힌디어 الهندية हिन्दी हिंदी ฮินดี"),
        "fr": _words(
            "french französisch français francés francês francese французский французском 法语 法文 フランス語 "
            "프랑스어 الفرنسية फ़्रेंच फ्रेंच ฝรั่งเศส"
        ),
        "de": _words(
            "german deutsch allemand alemán alemão tedesco немецкий немецком 德语 德文 ドイツ語 독일어 الألمانية "
            "जर्मन เยอรมัน"
        ),
        "es": _words(
            "spanish spanisch espagnol español espanhol spagnolo испанский испанском 西班牙语 スペイン語 스페인어 "
            "الإسبانية स्पेनिश สเปน"
        ),
        "pt": _words(
            "portuguese portugiesisch portugais portugués português portoghese португальский 葡萄牙语 "
            "ポルトガル語 포르투갈어 البرتغالية पुर्तगाली โปรตุเกส"
        ),
        "it": _words(
            "italian italienisch italien italiano итальянский 意大利语 イタリア語 이탈리아어 الإيطالية इतालवी อิตาลี"
        ),
        "vi": _words(
            "vietnamese vietnamesisch vietnamien vietnamita вьетнамский 越南语 ベトナム語 베트남어 tiếng_việt เวียดนาม"
        ),
        "th": _words("thai thailändisch thaï tailandés tailandês тайский 泰语 タイ語 태국어 التايلاندية थाई ไทย"),
        "la": _words("latin latein latín latim латинский 拉丁语 ラテン語"),
        "el": _words("greek griechisch grec griego grego греческий 希腊语 ギリシャ語"),
        "he": _words("hebrew hebräisch hébreu hebreo hebraico иврит 希伯来语 ヘブライ語"),
        "nl": _words("dutch niederländisch néerlandais holandés holandês нидерландский 荷兰语 オランダ語"),
        "tr": _words("turkish türkisch turc turco турецкий 土耳其语 トルコ語"),
        "pl": _words("polish polnisch polonais polaco польский 波兰语 ポーランド語"),
        "uk": _words("ukrainian ukrainisch ukrainien ucraniano украинский 乌克兰语 ウクライナ語"),
        "fa": _words("persian farsi persisch persan persa персидский 波斯语 ペルシャ語"),
        "sv": _words("swedish schwedisch suédois sueco шведский 瑞典语"),
        "id": _words("indonesian indonesisch indonésien indonesio 印尼语 インドネシア語"),
    }.items()
    for name in names
}
