"""Text of others within Markdown: whatever it holds, it stays text, in the place that it was given."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from factory.markdown import fenced, plain, table
from factory.visible import visible

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
NASTY = (
    *(
        "|",
        "\n",
        "`",
        "```",
        "~~~",
        "<b>",
        "</td>",
        "<!--",
        "[a](b)",
        "![",
        "](",
        "*",
        "__",
        "$$",
        "---",
        "\\",
        "&amp;",
    ),
    *(
        "# ",
        "- ",
        "1. ",
        "> ",
        "http://a.b",
        "www.a.b",
        "a@b.c",
        "\r",
        "\u2028",
        "\x1b[2J",
        "\ud800",
        "    ",
        "{{",
        "x",
    ),
)
nasty = st.lists(st.sampled_from(NASTY) | st.text(max_size=4), max_size=12).map("".join)


def _flat(tokens: list[Token]) -> list[Token]:
    return [one for token in tokens for one in ([token] if token.children is None else token.children)]


@given(nasty)
@example("a | b\n| --- |")
@example("<script>alert(1)</script>")
@example("`x` \\| y")
@example("")
def test_a_cell_shows_any_text_and_nothing_else(text: str) -> None:
    tokens = PARSER.parse(table(["one", "two"], [[text, "after"], [3, None]]))
    assert [token.type for token in tokens].count("td_open") == 4
    assert [token.type for token in tokens].count("table_open") == 1
    assert {token.type for token in _flat(tokens)} <= {
        *(f"{name}_{end}" for name in ("table", "thead", "tbody", "tr", "th", "td") for end in ("open", "close")),
        *("text", "text_special"),
    }
    cell = next(
        token for token in tokens[[token.type for token in tokens].index("td_open") :] if token.type == "inline"
    )
    shown = "".join(token.content for token in cell.children or ()).replace("\u2060", "")
    wanted = " ".join(visible(text).encode("utf-8", "replace").decode().split()).replace("\u2060", "")
    assert shown.removesuffix("...") == (wanted[:200] or "(empty)").removesuffix("...")


@given(nasty)
@example("````\n```")
@example("~~~")
def test_a_block_shows_any_text_as_it_is_and_ends_with_it(text: str) -> None:
    tokens = PARSER.parse("\n\n".join(["before", fenced(text), "after"]))
    assert [token.type for token in tokens if token.type not in ("paragraph_open", "paragraph_close")] == [
        *("inline", "fence", "inline")
    ]
    fence = next(token for token in tokens if token.type == "fence")
    for char in ("\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"):
        text = text.replace(char, "\n")
    assert fence.content == visible(text).encode("utf-8", "replace").decode() + "\n"
    assert fence.info == "text"


@given(nasty)
@example("a_b_ _c_ -d- e: f")
def test_a_piece_of_text_is_one_line_of_text_after_words(text: str) -> None:
    assert "\n" not in plain(text)
    tokens = PARSER.parse(f"It is {plain(text)}.\n\n# {plain(text)}\n\n- It is {plain(text)}.")
    assert {token.type for token in _flat(tokens)} <= {
        *(
            f"{name}_{end}"
            for name in ("paragraph", "heading", "bullet_list", "list_item")
            for end in ("open", "close")
        ),
        *("text", "text_special"),
    }
    assert not set(plain(text)) & set("|`*<>[]$\\~@!{}")
