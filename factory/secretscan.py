"""Secrets and personal data in texts that are about to be published.

Pure: texts in, findings out. A secret has a shape that hardly anything else has; one that is plainly a placeholder is
none. Never keeps, returns or prints a found value: only its kind, its first characters and its length. What it cannot
know: secrets without a shape of their own, names and addresses of people. `factory/PUBLISH.md` has what was measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

RULES_VERSION: Final = "1"  # raised when the same text would give other findings
SHOWN_CHARACTERS: Final = 5  # of a value, at its beginning: its prefix, which says whose it is
MIN_DISTINCT: Final = 8  # characters of a secret; fewer are a placeholder such as xxxxxxxx: guess

# RE2 and Python read these alike: no lookarounds. Group 1, where there is one, is the value.
SECRETS: Final = {
    "Hugging Face token": r"\b(?:hf|api_org)_[A-Za-z0-9]{34,40}\b",
    "OpenAI or Anthropic key": r"\bsk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]{2,12}-)?[A-Za-z0-9_-]{32,200}",
    "AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{60,255})\b",
    "GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,64}",
    "Google API key": r"\bAIza[0-9A-Za-z_-]{35}",
    "Slack token": r"\bxox[abeprs]-[0-9A-Za-z-]{20,250}",
    "JSON web token": r"\beyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{20,}",
    "private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s*[A-Za-z0-9+/=:,\s-]{64,}",
    # In settings: a key whose name says so. Texts about programs are full of these with made-up values, so a value
    # must look random: the check for placeholders asks that it has digits and letters, and no words.
    "credential in settings": r'"[A-Za-z_]*(?:api_?key|secret|password|access_token|auth_token)"\s*:\s*'
    r'"([^"\s]{16,200})"',
}
PERSONAL: Final = {
    # Of domains that end as most do: `w @ x.shape` is a product of matrices.
    "e-mail address": r"\b[A-Za-z0-9][A-Za-z0-9._%+-]{1,63}@(?:[A-Za-z0-9-]{1,63}\.){0,3}[A-Za-z0-9-]{2,63}\."
    r"(?:[a-z]{2}|[A-Z]{2}|com|COM|org|ORG|net|NET|edu|EDU|gov|GOV|info|INFO|dev|app|cloud|online|tech|site)\b",
    # With country code and separators, or as North American numbers are written. Bare digits are mathematics.
    "phone number": r"(?:^|[\s:(\"'])("
    r"\+[1-9][0-9]{0,2}[ .-]?\(?[0-9]{2,4}\)?[ .-][0-9]{3,4}[ .-][0-9]{2,4}(?:[ .-][0-9]{2,4})?"
    r"|\([2-9][0-9]{2}\) ?[2-9][0-9]{2}-[0-9]{4}|[2-9][0-9]{2}-[2-9][0-9]{2}-[0-9]{4})\b",
}
_RESERVED: Final = re.compile(
    r"@(?:.*\.)?(?:example|test|invalid|localhost|domain|email|company|xyz)(?:\.[a-z.]+)?$|^(?:user|name|you|foo)@",
    re.I,
)  # RFC 2606, and names that only stand for one
_FICTION: Final = re.compile(r"555")  # the North American prefix of telephone numbers in stories
_WORDS: Final = re.compile(r"example|placeholder|redacted|your|dummy|sample|12345678|abcdef", re.I)


class Hit(NamedTuple):
    """One finding: what, and enough to look it up, never the value."""

    kind: str
    shown: str  # the beginning of the value and its length
    is_secret: bool


def find_in_text(text: str) -> Iterator[Hit]:
    """Yield what is found in a text."""
    for kind, pattern in _COMPILED.items():
        for match in pattern.finditer(text):
            value = match[match.lastindex or 0]
            is_secret = kind in SECRETS
            if _is_placeholder(kind, value):
                continue
            yield Hit(kind, masked(value, is_secret=is_secret), is_secret)


def suspicious(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return the indices of the texts in which something may be: RE2 over all of them, at hundreds of MB/s."""
    found = pc.match_substring_regex(texts, _HINT)
    return pc.indices_nonzero(pc.fill_null(found, False))


def masked(value: str, *, is_secret: bool = True) -> str:
    """Return what may be shown of a value: its first characters and its length; of an address, its domain."""
    if not is_secret and "@" in value:
        return f"…@{value.rpartition('@')[2]}"
    return f"{value[: SHOWN_CHARACTERS if is_secret else 3]}… ({len(value)} characters)"


def _is_placeholder(kind: str, value: str) -> bool:
    match kind:
        case "e-mail address":
            return _RESERVED.search(value) is not None
        case "phone number":
            return _FICTION.search(value) is not None or len(set(value) & set("0123456789")) < 4
        case "private key":
            value = value.partition("KEY")[2]
        case "credential in settings":
            if not re.search(r"[0-9]", value) or not re.search(r"[A-Za-z]", value):
                return True
    return len(set(value)) < MIN_DISTINCT or _WORDS.search(value) is not None


_COMPILED: Final = {kind: re.compile(pattern) for kind, pattern in (SECRETS | PERSONAL).items()}
# One pattern for a first look; without the name in front of an `@`, which every character of an id may begin.
_HINTS: Final = SECRETS | PERSONAL | {"e-mail address": r"[A-Za-z0-9]@[A-Za-z0-9-]+\.[A-Za-z]"}
_HINT: Final = "|".join(f"(?:{pattern})" for pattern in _HINTS.values())


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a message without secrets: known values, tokens by their shape, and the queries of URLs (signatures)."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "(hidden)")
    for kind in SECRETS:
        text = _COMPILED[kind].sub("(hidden)", text)
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1?(hidden)", text)
