"""Sentences shortened to a terminal's columns: whatever the width, they fit, and no number loses a digit or its unit."""

from __future__ import annotations

import re

import pytest

from pytest_mxq.reports.shortening import ELLIPSIS, display_width, shorten

SENTENCES = (
    "mean 0.0037 > 0.0001, worst 0.0061 > 0.0010",
    "mean 43.20 dB < 70.00 dB, worst 40.06 dB < 46.50 dB (frame 12 of 121)",
    "1.31x < 1.40x, 95 % interval [1.302, 1.318]; BF16 2.10 s -> 1.60 s, n=8",
    "peak 61.25 GiB > 60.00 GiB; ratio 0.7512 > 0.7500",
    "torch 2.11.0+cu130 -> 2.12.0; compute capability 10.0, found 9.0 (NVIDIA H200, 139 GiB)",
    "0.5 of 小猫在窗台上 1024 x 1024 > 0.25",
    "2026-11-25T03:37:30+00:00",
    "-1e-05 dB",
    "no number at all, and a word_that_is_as_long_as_a_path/of/many/folders/can/be",
    "",
)
NUMBER = re.compile(r"\d[\w.,:+/-]*\w|\d")
WITH_UNIT = re.compile(r"\d[\d.]* (?:dB|%|s|GiB)(?![\w%])")


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("second_line", ["", "\n  worst     0.0061"], ids=["one line", "two lines"])
def test_it_fits_and_cuts_no_number_and_no_unit(sentence: str, second_line: str) -> None:
    for width in range(display_width(sentence) + 2):
        short = shorten(sentence + second_line, width)
        assert display_width(short) <= width
        assert "\n" not in short
        if short == sentence:
            continue
        assert short == "" or short.endswith(ELLIPSIS)
        kept = short.removesuffix(ELLIPSIS).rstrip()
        assert sentence.startswith(kept)
        for pattern in (NUMBER, WITH_UNIT):
            for match in pattern.finditer(sentence):
                assert not match.start() < len(kept) < match.end(), (width, short)
    assert shorten(sentence, display_width(sentence)) == sentence


def test_it_keeps_as_many_words_as_fit() -> None:
    sentence = SENTENCES[0]
    kept = [shorten(sentence, width) for width in range(len(sentence) + 1)]
    assert [len(text) for text in kept] == sorted(len(text) for text in kept)
    assert list(dict.fromkeys(kept))[:5] == ["", "...", "mean ...", "mean 0.0037 ...", "mean 0.0037 > 0.0001 ..."]


def test_a_wide_character_takes_two_columns_and_a_combining_one_none() -> None:
    assert display_width("小猫 0.5") == 8
    assert display_width("e\u0302\u0323") == 1
    assert shorten("小猫 小猫 小猫", 9) == "小猫 ..."
