"""The recognizer: one or many, in order, with errors as values where asked for, by any way in, and without torch."""

import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from helpers import RATE, make_bundle, recognizer_of, say

import asr
from asr.bundle import BUNDLES
from asr.errors import AsrError, AudioError
from asr.recognizer import in_order
from asr.sources import AudioSource
from asr.transcript import Transcript


@pytest.fixture(scope="module")
def model():
    return recognizer_of(make_bundle())


@pytest.fixture(scope="module")
def utterances():
    texts = ["ab c cab", "b", "bca a", "c"]
    return [say(text, np.random.default_rng(i)) for i, text in enumerate(texts)]


def test_a_list_gives_a_list_and_one_gives_one(model, utterances):
    one = model.transcribe(utterances[0])
    assert isinstance(one, Transcript)
    several = model.transcribe(utterances)
    assert len(several) == 4
    assert several[0].text == one.text
    assert str(one) == one.text
    assert model.transcribe([]) == []


def test_a_file_its_bytes_a_stream_and_its_samples_are_the_same(model, utterances, tmp_path):
    path = tmp_path / "speech.wav"
    soundfile.write(path, utterances[0], RATE, subtype="FLOAT")
    ways = [path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), utterances[0]]
    assert len(set(model.transcribe(ways))) == 1


def test_many_come_in_their_order_whatever_their_lengths(model, utterances):
    found = list(model.transcribe_many(utterances, batch_seconds=1.0))
    assert [transcript.duration for transcript in found] == [len(samples) / RATE for samples in utterances]
    completed = [index for index, _ in model.transcribe_as_completed(utterances, batch_seconds=1.0)]
    assert completed == sorted(range(4), key=lambda i: len(utterances[i]))


def test_errors_are_raised_or_returned_in_their_place(model, utterances, tmp_path):
    audio = [utterances[0], tmp_path / "missing.wav", utterances[1]]
    found = list(model.transcribe_many(audio, errors="return"))
    assert [type(outcome) for outcome in found] == [Transcript, AudioError, Transcript]
    rest = model.transcribe_many(audio)
    assert next(rest).duration == len(utterances[0]) / RATE
    with pytest.raises(AudioError, match=r"there is no file .*missing\.wav"):
        next(rest)
    with pytest.raises(ValueError, match="expected 'raise' or 'return'"):
        next(model.transcribe_many(audio, errors="ignore"))


def test_progress_is_the_seconds_of_audio(model, utterances):
    seconds = []
    sources = [AudioSource(f"speech {i}", lambda x=x: iter([x]), 1.0) for i, x in enumerate(utterances)]
    list(model.transcribe_many(sources, progress=seconds.append))
    assert sum(seconds) == pytest.approx(sum(map(len, utterances)) / RATE)


def test_what_waits_for_one_before_it_is_not_lost_to_an_error():
    def outcomes():
        yield 2, "c"
        yield 0, "a"
        raise AsrError("no more")

    found = in_order(outcomes())
    assert [next(found), next(found)] == [(0, "a"), (2, "c")]
    with pytest.raises(AsrError, match="no more"):
        next(found)


def test_log_probs_are_those_that_are_decoded(model, utterances):
    several = model.log_probs(utterances)
    assert [len(one) for one in several] == [len(model.log_probs(samples)) for samples in utterances]
    for one in several:
        assert one.dtype == np.float32
        np.testing.assert_allclose(np.exp(one).sum(1), 1, rtol=1e-5)
    (hypothesis,) = model.decoder([several[0]])
    assert (
        model.bundle.tokenizer.decode(hypothesis.tokens).split()
        == model.transcribe(utterances[0]).text.split()
    )
    assert model.log_probs(np.zeros(0, np.float32)).shape == (0, 5)


def test_a_model_is_loaded_by_its_name():
    model = asr.load("an4", device="cpu", threads=1)
    assert model.bundle.folder == BUNDLES / "an4"
    assert asr.load(device="cpu").bundle.folder == BUNDLES / "english"
    with pytest.raises(AsrError, match="there is no bundle an5"):
        asr.load("an5")
    with pytest.raises(AsrError, match="there is no engine 'tensorflow'; there are auto, onnx, torch"):
        asr.load("an4", engine="tensorflow")


def test_seams_are_in_the_transcript(model):
    assert model.transcribe(np.zeros(15 * RATE, np.float32)).seams == ()
    seams = model.transcribe(np.zeros(50 * RATE, np.float32)).seams
    assert len(seams) >= 2
    assert list(seams) == sorted(seams)
    assert 0 < seams[0] <= 20
    assert 30 <= seams[-1] < 50


def test_recognition_is_imported_without_torch():
    rooms = "recognizer decoding audio outputs streaming scoring"
    program = (
        f"import sys, importlib; [importlib.import_module(f'asr.{{room}}') for room in {rooms.split()!r}];"
        "print({'torch', 'torchaudio', 'lhotse'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
