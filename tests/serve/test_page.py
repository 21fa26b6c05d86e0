"""The page in a real browser, with a microphone that plays a file."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from serving import RATE, load, serving

from asr.audio import load_audio
from asr.serve.app import PAGE

browser = pytest.importorskip("browser", reason="the extra serve is not installed")
WORDS = "[...document.querySelectorAll('.word')].map(word => word.firstChild.data).join(' ')"
STATUS = "document.getElementById('status').textContent"


def test_the_page_asks_for_nothing_from_elsewhere():
    content = PAGE.read_text("utf-8")
    assert not re.findall(r"https?://", content)
    assert not re.findall(r"<(?:script|link|img)[^>]* (?:src|href)=(?!\"data:)", content)


@pytest.fixture(scope="module")
def running():
    with serving(["an4", "other=an4"]) as running:
        yield running


@pytest.fixture
def chromium(tmp_path, spoken):
    if browser.find() is None:
        pytest.skip("there is no Chromium")
    speech = np.concatenate([load_audio(spoken[0]), np.zeros(2 * RATE, np.float32)])
    soundfile.write(tmp_path / "microphone.wav", speech, RATE)
    chromium = browser.Browser(tmp_path / "profile", tmp_path / "microphone.wav")
    yield chromium
    chromium.close()
    assert not chromium.errors


def picture(chromium, name):
    """Keep a picture where a folder for them is named, for people to look at."""
    if folder := os.environ.get("ASR_TEST_PICTURES"):
        Path(folder).mkdir(exist_ok=True)
        chromium.screenshot(Path(folder) / f"{name}.png")


def test_a_file_is_transcribed_edited_and_saved(chromium, running, spoken, tmp_path):
    expected = load("an4").transcribe(spoken[0])
    path = tmp_path / "spelled.flac"
    soundfile.write(path, load_audio(spoken[0]), RATE)
    chromium.open(f"{running.url}/")
    chromium.wait("document.getElementById('model').options.length === 2")
    chromium.choose_file("#file", path)
    chromium.wait(f"{STATUS}.startsWith('Done')")
    assert chromium.evaluate(WORDS) == expected.text
    # Waveform, spectrogram and tokens are painted.
    lit = (
        "(top, height) => {const c = document.getElementById('canvas'); const d = c.getContext('2d')"
        ".getImageData(0, top, c.width, height).data; let n = 0; for (let i = 0; i < d.length; i += 4)"
        " { if (d[i] + d[i + 1] + d[i + 2] > 200) n++; } return n / (d.length / 4); }"
    )
    for top, height in ((0, 70), (70, 160), (232, 94)):
        assert chromium.evaluate(f"({lit})({top}, {height})") > 0.005
    picture(chromium, "file")
    # A click plays the word, and no more.
    chromium.evaluate("document.querySelectorAll('.word')[1].click()")
    chromium.wait(
        "!document.getElementById('audio').paused || document.getElementById('audio').currentTime > 0.1"
    )
    chromium.wait("document.getElementById('audio').paused")
    stopped = chromium.evaluate("document.getElementById('audio').currentTime")
    assert expected.words[1].start < stopped < expected.words[1].end + 0.5
    # The keyboard goes from word to word, edits and removes.
    chromium.evaluate("document.querySelector('.word').focus()")
    chromium.key("ArrowRight", 39)
    assert chromium.evaluate("document.activeElement.firstChild.data") == expected.words[1].word
    assert "% sure" in chromium.evaluate("document.activeElement.getAttribute('aria-label')")
    chromium.key("F2", 113)
    chromium.evaluate("document.activeElement.value = 'two words'")
    chromium.key("Enter", 13, "\r")
    words = [word.word for word in expected.words]
    assert chromium.evaluate(WORDS).split() == [words[0], "two", "words", *words[2:]]
    chromium.key("Delete", 46)
    assert chromium.evaluate(WORDS).split() == [words[0], "words", *words[2:]]
    assert chromium.evaluate("SAVED.txt()") == " ".join([words[0], "words", *words[2:]]) + "\n"
    assert chromium.evaluate("SAVED.srt()").startswith(f"1\n00:00:0{int(expected.words[0].start)},")
    assert chromium.evaluate("JSON.parse(SAVED.json()).words[1].edited")
    addresses = [url for url in chromium.requests if not url.startswith(("blob:", "data:", "about:"))]
    assert addresses
    assert all(url.startswith(running.url) for url in addresses)


@pytest.mark.slow
def test_words_appear_while_it_is_recorded(chromium, running, spoken):
    chromium.open(f"{running.url}/")
    chromium.wait("document.getElementById('model').options.length === 2")
    chromium.evaluate("document.getElementById('record').click()")
    chromium.wait("document.getElementById('record').getAttribute('aria-pressed') === 'true'")
    chromium.wait("document.querySelectorAll('.word').length > 1")
    assert "Recording" in chromium.evaluate(STATUS)
    picture(chromium, "recording")
    chromium.wait(
        f"document.querySelectorAll('.word').length >= {len(load('an4').transcribe(spoken[0]).words) - 1}"
    )
    chromium.evaluate("document.getElementById('record').click()")
    chromium.wait(f"{STATUS}.startsWith('Done')")
    assert chromium.evaluate(WORDS) == load("an4").transcribe(spoken[0]).text
    assert chromium.evaluate("document.querySelectorAll('audio')[0].duration") > 2


@pytest.mark.slow
def test_a_phone_in_the_dark_and_a_token(chromium, spoken, tmp_path):
    path = tmp_path / "spelled.flac"
    soundfile.write(path, load_audio(spoken[0]), RATE)
    with serving(token="sesame") as running:
        chromium.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}]
        )
        chromium.call(
            "Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True
        )
        chromium.open(f"{running.url}/")
        chromium.wait("!document.getElementById('login').hidden")
        chromium.evaluate(
            "document.getElementById('token').value = 'sesame';"
            "document.getElementById('token-form').requestSubmit()"
        )
        chromium.wait("document.getElementById('login').hidden")
        chromium.choose_file("#file", path)
        chromium.wait(f"{STATUS}.startsWith('Done')")
        picture(chromium, "phone")
        assert chromium.evaluate("document.documentElement.scrollWidth") <= 360
        assert chromium.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
        chromium.choose_file("#file", PAGE)
        chromium.wait(f"{STATUS}.includes('is no audio')")
