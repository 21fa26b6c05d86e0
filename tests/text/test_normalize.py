import re
import sys
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import asr
from asr.errors import TextError
from asr.text import (
    NORMALIZERS,
    normalize,
    normalizer_version,
)
from asr.text.normalize import _english_rules


class TestNormalizers:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("HE HOPED THERE WOULD BE STEW", "he hoped there would be stew"),
            ("  white\tspace\n collapses ", "white space collapses"),
            ("Don’t, can´t, won`t, shanʼt, isn't!", "don't can't won't shan't isn't"),
            ("'Tis the dogs' “dinner”, 'she' said.", "tis the dogs dinner she said"),
            ("rock ' n ' roll ''quoted''", "rock n roll quoted"),
            ("well-known — and/or e.g. this…", "well known and or e g this"),
            ("¿Qué pasó, señor Núñez?", "qué pasó señor núñez"),
            ("Cafe\u0301 ＡＢＣ ﬁne １２", "café abc fine 12"),
            ("GROẞE STRAẞE", "große straße"),
            ("ΟΔΟΣ", "οδος"),
            ("İYİ", "iyi"),
            ("love it \u2764\ufe0f, press 1\ufe0f\u20e3", "love it press 1"),
            ("\u845b\U000e0100城", "\u845b城"),
            ("नमस्ते, दुनिया!", "नमस्ते दुनिया"),
            ("今日は、世界。", "今日は 世界"),
            ("hy\u00adphen zero\u200bwidth \ufeffmark", "hyphen zero width mark"),
            ("M G R 1 9 5 7", "m g r 1 9 5 7"),
            ("?! …", ""),
            ("", ""),
        ],
    )
    def test_basic(self, text, expected):
        assert normalize(text, "basic") == expected

    @settings(max_examples=500, deadline=None)
    @given(st.text(max_size=40))
    @example("´ẛ̣'İ ﷺ ½'")
    def test_basic_is_at_peace_with_its_own_result(self, text):
        once = normalize(text, "basic")
        assert normalize(once, "basic") == once
        assert once == " ".join(once.split())
        assert all(c in " '" or unicodedata.category(c)[0] in "LMN" for c in once)

    def test_basic_on_each_character(self):
        for code in (*range(0xD800), *range(0xE000, 0x20000)):
            once = normalize(f"a{chr(code)}b", "basic")
            assert normalize(once, "basic") == once

    def test_basic_keeps_upper_case_corpora_apart_from_nothing_but_case(self, shared_data):
        transcripts = [
            line.split(maxsplit=1)[1]
            for line in (shared_data / "speechocean762/train/text").read_text().splitlines()
        ]
        assert len(transcripts) == 2500
        for text in transcripts:
            assert normalize(text, "basic").replace("'", "") == " ".join(
                text.lower().replace("'", "").split()
            )

    def test_none_leaves_text_alone(self):
        assert normalize(" As it IS. ", "none") == " As it IS. "

    def test_an_unknown_name(self):
        with pytest.raises(TextError, match=r"no normalizer 'basics'; there are basic, english, none"):
            normalize("text", "basics")
        assert set(NORMALIZERS) == {"basic", "english", "none"}

    def test_english_is_whispers(self):
        pytest.importorskip("whisper_normalizer")
        text = "Um, Mr. Brown's colour [laughs] won't cost twenty-one dollars!"
        assert normalize(text, "english") == "mister brown is color will not cost $21"
        assert normalize("", "english") == ""
        assert re.fullmatch(r"whisper-normalizer \d+\.\d+.*", normalizer_version("english"))

    def test_english_without_its_package_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
        _english_rules.cache_clear()
        with pytest.raises(TextError, match="pip install whisper-normalizer"):
            normalize("text", "english")

    def test_versions(self):
        assert normalizer_version("basic").startswith(f"asr {asr.__version__}, Unicode ")
        assert normalizer_version("none") == ""


def test_importing_it_imports_nothing_heavy():
    import subprocess
    import sys

    code = "import sys, asr.text; print(*{'torch', 'numpy', 'sentencepiece'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
