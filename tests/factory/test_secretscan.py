from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.secretscan import find_in_text, masked, redact, suspicious

# Of the right shape, made up, and put together here so that no scanner of repositories takes them for real ones.
BODY = "aB3dE5gH7jK9mN1pQ2sT4vW6xY8zA0cD2eF4gH6iJ8kL0mN2oP4qR6sT8uV0wX2yZ4"
SECRETS = {
    "Hugging Face token": "hf_" + BODY[:34],
    "OpenAI or Anthropic key": "sk-" + "proj-" + BODY[:48],
    "AWS access key": "AKIA" + "Q3ZB7TXN5RPLC2WD",
    "GitHub token": "ghp_" + BODY[:36],
    "GitLab token": "glpat-" + BODY[:20],
    "Google API key": "AIza" + BODY[:35],
    "Slack token": "xoxb-" + "2048-4096-" + BODY[:24],
    "JSON web token": f"eyJ{BODY[:30]}.eyJ{BODY[5:40]}.{BODY[:43]}",
    "private key": f"-----BEGIN RSA {'PRIVATE'} KEY-----\n{BODY}\n{BODY}\n",
    "credential in settings": f'"api_key": "{BODY[:24]}"',
}
around = st.text(alphabet=" \n.,;!?()äß中", max_size=20)


@pytest.mark.parametrize("kind", SECRETS)
@settings(max_examples=25)
@given(before=around, after=around)
def test_a_secret_is_found_in_any_text_and_never_shown(kind, before, after):
    text = f"{before} {SECRETS[kind]} {after}"
    hits = [hit for hit in find_in_text(text) if hit.is_secret]
    assert kind in {hit.kind for hit in hits}
    assert suspicious(pa.array(["nothing", text, None])).to_pylist() == [1]
    assert not [hit for hit in hits if BODY[:8] in hit.shown or len(hit.shown.partition("…")[0]) > 5]


@pytest.mark.parametrize(
    "text",
    [
        "hf_" + "x" * 34,
        "AKIA" + "IOSFODNN7" + "EXAMPLE",
        "sk-" + "your-api-key-goes-here-and-nowhere-else",
        "-----BEGIN PRIVATE KEY----- is how such a file begins",
        '{"password": "correct horse battery staple"}',
        '"api_key": "TEACHER_API_KEY_NAME"',
        "the hash is 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        "task-2024-and-risk-assessment-of-a-very-long-hyphenated-name",
        "f(x) = sk_1 + hf_2 - AIza",
        "user@example.com, you@yourcompany.com, a@b, x_1@2, foo@bar.example",
        "call 555-123-4567 or (555) 123-4567",
        "3+4 = 7, 12-345-6789, 100-200-300, 1.2.3.4, 2024-11-27, 3.14159 26535 89793",
        "12 345 678 9012, -123 456 7890, 10^9+7, 1-800, 5 000 000 000",
        "matrix [[1, 2], [3, 4]] @ v.T and w@x.shape",
    ],
)
def test_what_only_looks_like_one_is_none(text):
    assert not list(find_in_text(text))


@pytest.mark.parametrize(
    "text",
    ["jane.roe@posteo.net", "tel: +49 30 1234 5678", "(212) 736-5000", "call 415-736-5001", "+1 (415) 736-5001"],
)
def test_addresses_and_numbers_of_people_are_found_and_are_no_secrets(text):
    (hit,) = find_in_text(text)
    assert not hit.is_secret
    assert "jane" not in hit.shown


@given(st.text(max_size=300))
def test_no_text_is_too_odd_to_be_scanned(text):
    list(find_in_text(text))
    suspicious(pa.array([text]))


@given(st.text(max_size=60), st.booleans())
def test_what_is_shown_of_a_value_is_short(value, is_secret):
    shown = masked(value, is_secret=is_secret).partition("…")[0]
    assert len(shown) <= 5


@pytest.mark.parametrize("kind", SECRETS)
def test_a_message_is_shown_without_secrets_and_signatures(kind):
    text = f"PUT https://host/a/b?X-Amz-Signature=abc&c=d failed with {SECRETS[kind]} for my-own-password"
    shown = redact(text, ["my-own-password"])
    assert "abc" not in shown
    assert BODY[:12] not in shown
    assert "my-own" not in shown
    assert "https://host/a/b" in shown
