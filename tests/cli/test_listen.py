"""Words while they are spoken: samples on standard input, and a microphone that the test plays."""

import io
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soxr
from helpers import RATE, run_asr, say

import asr
from asr.streaming import Stream

TEXT = "ab c cab a bca"


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


class Pipe(io.BytesIO):
    """Gives what is asked for in pieces of odd sizes, as a pipe may; raises what it is told to at its end."""

    def __init__(self, content: bytes, end: BaseException | None = None):
        super().__init__(content)
        self.end = end

    def read1(self, size: int = -1) -> bytes:
        data = self.read(4321)
        if not data and self.end is not None:
            raise self.end
        return data


@pytest.fixture
def speech() -> np.ndarray:
    return say(TEXT, np.random.default_rng(0))


@pytest.fixture
def interruptible():
    """Have Ctrl-C heard where the tests run in the background, too, where a shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def feed(monkeypatch):
    """Make standard input a pipe with this content."""

    def put(content: bytes, end: BaseException | None = None, terminal: bool = False) -> None:
        stdin = SimpleNamespace(buffer=Pipe(content, end), isatty=lambda: terminal)
        monkeypatch.setattr(sys, "stdin", stdin)

    return put


def test_words_are_printed_as_the_stream_settles_them(bundle, speech, feed, capsys):
    stream = asr.load(bundle).stream(chunk=0.3, look_ahead=0.6)
    stream.feed(np.frombuffer(pcm(speech), "<i2").astype(np.float32) / 32768)
    stream.finish()
    assert stream.text.split()  # so that the comparison means something
    feed(pcm(speech))
    assert run_asr("listen - --model {bundle} --chunk 0.3 --look-ahead 0.6", bundle=bundle) == 0
    assert capsys.readouterr().out == stream.text + "\n"


def test_another_rate_is_resampled(bundle, speech, feed, capsys):
    texts = []
    for samples, rate in ((speech, RATE), (soxr.resample(speech, RATE, 44100), 44100)):
        feed(pcm(samples))
        line = "listen - --rate {rate} --model {bundle} --look-ahead 9"
        assert run_asr(line, rate=rate, bundle=bundle) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != "\n"


def test_an_interrupt_ends_with_what_was_heard(bundle, speech, feed, capsys):
    feed(pcm(speech))
    run_asr("listen - --model {bundle}", bundle=bundle)
    whole = capsys.readouterr().out
    feed(pcm(speech), end=KeyboardInterrupt())
    assert run_asr("listen - --model {bundle}", bundle=bundle) == 0
    assert capsys.readouterr().out == whole != "\n"


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_in_the_middle_of_a_step_waits_for_its_end(bundle, speech, feed, capsys, monkeypatch):
    step, streams = Stream._advance, []

    def pressed(self, *inputs):
        streams.append(self)
        if len(streams) == 3:
            signal.raise_signal(signal.SIGINT)
        return step(self, *inputs)

    monkeypatch.setattr(Stream, "_advance", pressed)
    feed(pcm(speech))
    assert run_asr("listen - --model {bundle}", bundle=bundle) == 0
    heard = streams[2]._front.received
    assert 0 < heard < len(speech)
    expected = asr.load(bundle).stream()
    expected.feed(np.frombuffer(pcm(speech)[: 2 * heard], "<i2").astype(np.float32) / 32768)
    expected.finish()
    assert capsys.readouterr().out == expected.text + "\n" != "\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "standard input is empty"),
        (b"RIFF....WAVE", "begins as a wav file; expected raw samples; use `asr transcribe -` for a file"),
        (b"\0" * 8001, "ended in the middle of a sample"),
    ],
)
def test_what_is_no_pcm_is_refused(bundle, feed, capsys, content, message):
    feed(content)
    assert run_asr("listen - --model {bundle}", bundle=bundle) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "speech.raw",
            "'speech.raw' was given; expected - for standard input, or nothing for the microphone",
        ),
        ("- --chunk 0", "expected a chunk of more than 0 s"),
        ("--rate 8000", "read at the model's rate"),
    ],
)
def test_options_that_do_not_fit(bundle, feed, capsys, options, message):
    feed(b"\0\0")
    assert run_asr(f"listen {options} --model {{bundle}}", bundle=bundle) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("listen - --rate 0", "'0' was given; expected a whole number, 1 or more"),
        ("listen - -o out", "'-o' is not an argument of asr listen"),
        ("listen - --beam-size 3", "'--beam-size' is not an argument of asr listen"),
        ("transcribe x.wav --look-ahead 1", "'--look-ahead' is not an argument of asr transcribe"),
    ],
)
def test_options_of_other_commands(feed, capsys, line, message):
    feed(b"\0\0")
    with pytest.raises(SystemExit) as caught:
        run_asr(line)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_transcribing_nothing_is_refused(bundle, capsys):
    assert run_asr("transcribe --model {bundle}", bundle=bundle) == 1
    assert "no input was given" in capsys.readouterr().err


def test_a_terminal_is_no_pipe(bundle, feed, capsys):
    feed(b"", terminal=True)
    assert run_asr("listen - --model {bundle}", bundle=bundle) == 1
    assert "standard input is a terminal" in capsys.readouterr().err


class PortAudioError(Exception):
    pass


def test_a_microphone_is_read_until_the_interrupt(bundle, speech, monkeypatch, capsys):
    class InputStream:
        def __init__(self, samplerate, channels, dtype):
            assert (samplerate, channels, dtype) == (RATE, 1, "float32")
            self.left = speech

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, frames):
            if not len(self.left):
                raise KeyboardInterrupt
            samples, self.left = self.left[:frames], self.left[frames:]
            return samples[:, None], len(self.left) < frames

    played = SimpleNamespace(InputStream=InputStream, PortAudioError=PortAudioError)
    monkeypatch.setitem(sys.modules, "sounddevice", played)
    assert run_asr("listen --model {bundle}", bundle=bundle) == 0
    printed = capsys.readouterr()
    stream = asr.load(bundle).stream()
    stream.feed(speech)
    stream.finish()
    assert printed.out == stream.text + "\n" != "\n"
    assert "listening" in printed.err
    assert "some audio was lost" in printed.err


def test_no_microphone(bundle, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert run_asr("listen --model {bundle}", bundle=bundle) == 1
    assert "pip install 'recurrent-asr[microphone]'" in capsys.readouterr().err

    def refuse(**_):
        raise PortAudioError("Error querying device -1")

    monkeypatch.setitem(
        sys.modules, "sounddevice", SimpleNamespace(InputStream=refuse, PortAudioError=PortAudioError)
    )
    assert run_asr("listen --model {bundle}", bundle=bundle) == 1
    assert "the microphone cannot be read at 16000 Hz: Error querying" in capsys.readouterr().err
