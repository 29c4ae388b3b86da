"""The bundled calibration set and the held-out text: many languages, many kinds of text, nothing in both."""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cache

import pytest

from calibration_rig import conversations
from quantchat.domain.text import clean
from quantchat.paths import calibration_file, held_out_file

WORDS = {
    "English": {"the", "and", "is", "that", "with", "of", "it"},
    "German": {"der", "und", "nicht", "ist", "das", "mit", "ein", "wie"},
    "French": {"le", "les", "des", "est", "une", "et", "du", "pour"},
    "Spanish": {"el", "los", "que", "una", "y", "con", "por", "para"},
}
KANA = re.compile(r"[぀-ヿ]")
HAN = re.compile(r"[一-鿿]")
AT_LEAST = {"English": 100, "German": 20, "French": 20, "Spanish": 20, "Chinese": 20, "Japanese": 20}
LANGUAGES = list(AT_LEAST)
RUN = 40
"""Letters and digits that may not stand in both texts one after the other."""


def language(text: str) -> str:
    """Tell a language by its script or its commonest words; code counts for nothing."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL).lower()
    if KANA.search(prose):
        return "Japanese"
    if HAN.search(prose):
        return "Chinese"
    words = re.findall(r"\w+", prose)
    return max(WORDS, key=lambda name: sum(word in WORDS[name] for word in words))


def folded(text: str) -> str:
    """Letters and digits alone, in small letters: what is left of a sentence however it is set."""
    return "".join(char for char in unicodedata.normalize("NFKC", text).casefold() if char.isalnum())


@cache
def exchanges() -> list[list[dict[str, str]]]:
    return conversations(calibration_file())


@cache
def held_out() -> str:
    return held_out_file().read_text(encoding="utf-8")


def contents(role: str = "") -> list[str]:
    return [message["content"] for row in exchanges() for message in row if role in ("", message["role"])]


def test_the_set_is_large_and_nothing_is_in_it_twice() -> None:
    assert len(exchanges()) >= 240
    questions = [folded(next(m["content"] for m in row if m["role"] == "user")) for row in exchanges()]
    answers = [folded(row[-1]["content"]) for row in exchanges()]
    assert len(set(zip(questions, answers, strict=True))) == len(exchanges())
    assert len(set(questions)) > 0.98 * len(questions)


def test_user_and_assistant_take_turns_behind_at_most_one_system_prompt() -> None:
    for row in exchanges():
        roles = [message["role"] for message in row]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2), row
        assert turns, row


def test_nothing_in_a_message_would_be_hidden_on_a_screen() -> None:
    for content in contents():
        assert clean(content.replace("\t", " ")) == content.replace("\t", " ").strip()
        assert unicodedata.normalize("NFC", content) == content


def test_each_line_has_nothing_but_messages_of_a_role_and_a_content() -> None:
    for line in calibration_file().read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert list(row) == ["messages"]
        assert all(list(message) == ["role", "content"] for message in row["messages"])


@pytest.mark.parametrize("name", LANGUAGES)
def test_six_languages_are_well_represented(name: str) -> None:
    spoken = [language(" ".join(message["content"] for message in row)) for row in exchanges()]
    assert spoken.count(name) >= AT_LEAST[name]


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_third_exchange_has_all_languages_too(name: str) -> None:
    spoken = [language(" ".join(message["content"] for message in row)) for row in exchanges()[::3]]
    assert spoken.count(name) >= AT_LEAST[name] // 5


@pytest.mark.parametrize(
    "fence", ["python", "javascript", "typescript", "sql", "c", "bash", "go", "rust", "java", "haskell", "json", "html"]
)
def test_code_in_many_languages_is_in_the_set(fence: str) -> None:
    assert any(f"```{fence}\n" in content for content in contents("assistant"))


@pytest.mark.parametrize(
    "mark", ["∫", "√", "²", "|---|", "1. ", "- ", "**", "Subject:", "Dear ", '": "', "¿", "œ", "ß", "「", "《"]
)
def test_maths_tables_lists_and_letters_are_in_the_set(mark: str) -> None:
    assert any(mark in content for content in contents())


def test_lengths_and_turns_vary() -> None:
    lengths = sorted(sum(len(message["content"]) for message in row) for row in exchanges())
    assert lengths[0] < 80
    assert lengths[-1] > 1_400
    assert sum(sum(m["role"] == "user" for m in row) > 1 for row in exchanges()) >= 20
    assert sum(row[0]["role"] == "system" for row in exchanges()) >= 10


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_held_out_text_has_the_same_languages(name: str) -> None:
    spoken = [language(paragraph) for paragraph in held_out().split("\n\n") if len(paragraph) > 80]
    assert spoken.count(name) >= 2


@pytest.mark.parametrize("mark", ["def ", "async function ", "SELECT ", '{"', "|---|", "n²", "User: ", "1. "])
def test_the_held_out_text_has_code_maths_and_dialogue(mark: str) -> None:
    assert mark in held_out()


def test_no_sentence_of_the_held_out_text_is_in_the_calibration_set() -> None:
    seen = folded(" ".join(contents()))
    sentences = [folded(sentence) for sentence in re.split(r"[.!?;:。！？：\n]+", held_out())]
    whole = [sentence for sentence in sentences if len(sentence) >= (6 if HAN.search(sentence) else 16)]
    assert len(whole) > 120
    assert [sentence for sentence in whole if sentence in seen] == []


def test_no_long_run_of_letters_is_in_both() -> None:
    seen = {letters[at : at + RUN] for letters in map(folded, contents()) for at in range(len(letters) - RUN + 1)}
    letters = folded(held_out())
    assert len(letters) > 6_000
    assert [run for at in range(len(letters) - RUN + 1) if (run := letters[at : at + RUN]) in seen] == []
