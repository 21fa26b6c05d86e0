"""OpenAI's own client against the service, and plain HTTP where the client hides the answer."""

import json

import httpx
import pytest
from serving import load, serving

import asr

openai = pytest.importorskip("openai", reason="the package openai is not installed")


@pytest.fixture
def client(service):
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def transcriptions(service):
    return f"{service.url}/v1/audio/transcriptions"


def post(service, path, **data):
    with path.open("rb") as file:
        return httpx.post(transcriptions(service), files={"file": file}, data=data, timeout=60)


def test_text_equals_the_files_own(client, spoken):
    expected = load("an4").transcribe(spoken[0])
    with spoken[0].open("rb") as file:
        assert client.audio.transcriptions.create(model="an4", file=file).text == expected.text
    assert len(expected.text.split()) > 2


def test_verbose_json_has_words_and_segments(client, spoken):
    expected = load("an4").transcribe(spoken[1])
    answer = client.audio.transcriptions.create(
        model="an4",
        file=spoken[1],
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        language="en",
    )
    assert [(word.word, word.start, word.end) for word in answer.words] == [
        (word.word, word.start, word.end) for word in expected.words
    ]
    assert [segment.text for segment in answer.segments] == [segment.text for segment in expected.segments]
    assert answer.duration == expected.duration
    assert answer.language == "en"
    assert all(segment.avg_logprob <= 0 for segment in answer.segments)


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
def test_plain_forms(client, spoken, form):
    from asr.outputs import render

    answer = client.audio.transcriptions.create(model="an4", file=spoken[0], response_format=form)
    assert answer == render(load("an4").transcribe(spoken[0]), {"text": "txt"}.get(form, form), "recording")


def test_stream_adds_up_to_the_whole(client, spoken):
    events = list(client.audio.transcriptions.create(model="an4", file=spoken[0], stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert events[-1].type == "transcript.text.done"
    assert "".join(deltas) == events[-1].text == load("an4").transcribe(spoken[0]).text
    assert len(deltas) > 2


def test_words_of_long_audio_come_before_its_end(service, spoken, tmp_path):
    import numpy as np
    import soundfile

    from asr.audio import load_audio

    samples = np.concatenate([load_audio(path) for path in spoken] * 2)[: 60 * 16000]
    path = tmp_path / "long.flac"
    soundfile.write(path, samples, 16000)
    kinds, text = [], ""
    with (
        path.open("rb") as file,
        httpx.stream(
            "POST", transcriptions(service), files={"file": file}, data={"stream": "true"}, timeout=60
        ) as answer,
    ):
        for line in answer.iter_lines():
            if line:
                event = json.loads(line.removeprefix("data: "))
                kinds.append(event["type"])
                text += event.get("delta", "")
                batches = service.service.metrics._batches if len(kinds) == 1 else None
                if batches is not None:
                    first = service.service.models.loaded[0].batcher.waiting
    assert text == load("an4").transcribe(path).text
    assert kinds.count("transcript.text.done") == 1
    assert first == 1  # the first word came while the rest was still to be computed


def test_models(client):
    assert [model.id for model in client.models.list()] == ["an4", "other"]
    assert client.models.retrieve("other").id == "other"
    with pytest.raises(openai.NotFoundError, match="no model 'whisper-1'"):
        client.models.retrieve("whisper-1")


def test_a_model_is_loaded_when_it_is_asked_for(spoken):
    loaded = []

    def loader(folder):
        loaded.append(folder)
        return load(folder)

    with serving(["an4", "other=an4"], loader) as running:
        assert len(loaded) == 1
        texts = {post(running, spoken[0], model=name).json()["text"] for name in ("", "other", "other")}
    assert len(loaded) == 2
    assert len(texts) == 1


def test_a_prompt_is_a_list_of_hot_words(client, service, spoken):
    pytest.importorskip("flashlight.lib.text")
    words = {"wives": 4.0, "five": 4.0}
    biased = client.audio.transcriptions.create(model="an4", file=spoken[0], prompt="wives, five")
    expected = asr.load("an4", "cpu", engine="onnx", threads=1, hotwords=words, processes=1)
    assert biased.text == expected.transcribe(spoken[0]).text
    model = service.service.models.loaded[0]
    assert [*model._decoders] == [("wives", "five")]
    (search,) = model._decoders.values()
    assert search.search.hotwords == words


def test_errors_of_the_client_name_the_field(client, noise, tmp_path):
    with pytest.raises(openai.BadRequestError, match=r"response_format is 'jsn'.*did you mean 'json'"):
        client.audio.transcriptions.create(model="an4", file=noise, response_format="jsn")
    with pytest.raises(openai.NotFoundError, match="no model 'whisper-1'; there are an4, other"):
        client.audio.transcriptions.create(model="whisper-1", file=noise)
    text = tmp_path / "notes.wav"
    text.write_text("no audio at all")
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(model="an4", file=text)
    assert caught.value.param == "file"
    assert "the uploaded file is no audio" in str(caught.value)
    assert "/tmp" not in str(caught.value)


def test_posteriors_are_those_of_the_model(service, spoken):
    import numpy as np

    answer = post(service, spoken[0], **{"include[]": "posteriors"}).json()["posteriors"]
    log_probs = load("an4").log_probs(spoken[0])
    assert answer["tokens"] == load("an4").bundle.tokenizer.tokens
    frame, token, probability = max(answer["frames"], key=lambda item: item[2])
    assert probability == pytest.approx(float(np.exp(log_probs[frame, token])), abs=1e-3)
    assert all(token for _, token, _ in answer["frames"])


def test_metrics_count_what_was_done(service, spoken):
    def value(name):
        lines = httpx.get(f"{service.url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    name = 'asr_requests_total{endpoint="/v1/audio/transcriptions",status="200"}'
    before, audio = value(name), value("asr_audio_seconds_total")
    post(service, spoken[0])
    assert value(name) == before + 1
    assert value("asr_audio_seconds_total") - audio == pytest.approx(
        load("an4").transcribe(spoken[0]).duration, abs=0.01
    )
    assert value("asr_requests_in_progress") == 0
    assert not list(service.folder.iterdir())  # uploads are gone
