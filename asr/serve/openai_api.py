"""OpenAI's transcription API: what a form asks for, and how a transcript is answered."""

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.responses import JSONResponse, PlainTextResponse, Response

from asr.outputs import render
from asr.serve.request_error import RequestError
from asr.transcript import Segment, Transcript, Word
from asr.wording import nearest

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES = ("word", "segment")
TYPES = {"text": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}
TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off", "")
LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Query:
    """What a form asks for.

    Attributes:
        file: the audio.
        model: its name; "" for the service's first.
        form: of the answer, one of FORMATS.
        granularities: of times in verbose_json.
        prompt: words to be preferred.
        language: as the caller named it.
        stream: whether words are sent as they are settled.
        posteriors: whether the tokens' probabilities come too, an addition to OpenAI's API.
    """

    file: UploadFile
    model: str
    form: str
    granularities: tuple[str, ...]
    prompt: str
    language: str
    stream: bool
    posteriors: bool

    @classmethod
    def of(cls, form: FormData) -> "Query":
        """Read a form; fields that only other models know are ignored. Raises RequestError."""
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise RequestError(
                400, "the form has no file in its field `file`; expected an audio file there", "file"
            )
        if not file.size:
            raise RequestError(400, "the file is empty; expected audio", "file")
        shape = _text(form, "response_format") or "json"
        if shape not in FORMATS:
            raise RequestError(
                400,
                f"response_format is {shape[:30]!r}{nearest(shape[:30], FORMATS)}; expected {', '.join(FORMATS)}",
                "response_format",
            )
        granularities = _several(form, "timestamp_granularities")
        for value in granularities:
            if value not in GRANULARITIES:
                raise RequestError(
                    400,
                    f"a timestamp granularity is {value[:30]!r}; expected word or segment",
                    "timestamp_granularities[]",
                )
        stream = (_text(form, "stream") or "").lower()
        if stream not in TRUE + FALSE:
            raise RequestError(400, f"stream is {stream[:30]!r}; expected true or false", "stream")
        return cls(
            file,
            _text(form, "model"),
            shape,
            granularities or ("segment",),
            _text(form, "prompt"),
            _text(form, "language"),
            stream in TRUE,
            "posteriors" in _several(form, "include"),
        )


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    if not isinstance(value, str):
        raise RequestError(400, f"the field {name} is a file; expected text", name)
    return value.strip()


def _several(form: FormData, name: str) -> tuple[str, ...]:
    values = [*form.getlist(f"{name}[]"), *form.getlist(name)]
    return tuple(value for value in values if isinstance(value, str))


def answer(transcript: Transcript, query: Query, extra: dict[str, Any]) -> Response:
    """Return a transcript in the form that was asked for, with `extra` fields in verbose_json."""
    if query.form == "json":
        return JSONResponse({"text": transcript.text, "usage": _usage(transcript)} | extra)
    if query.form == "verbose_json":
        return JSONResponse(verbose(transcript, query) | extra)
    form = {"text": "txt"}.get(query.form, query.form)
    return PlainTextResponse(render(transcript, form, "recording"), media_type=TYPES[query.form])


def verbose(transcript: Transcript, query: Query) -> dict[str, Any]:
    """Return a transcript with segments, words, or both; a word's `confidence` is an addition to OpenAI's API."""
    values: dict[str, Any] = {
        "task": "transcribe",
        "language": query.language or "unknown",
        "duration": transcript.duration,
        "text": transcript.text,
        "usage": _usage(transcript),
    }
    if "segment" in query.granularities:
        values["segments"] = [_segment(i, segment) for i, segment in enumerate(transcript.segments)]
    if "word" in query.granularities:
        values["words"] = words_of(transcript.words)
    return values


def words_of(words: Sequence[Word]) -> list[dict[str, Any]]:
    """Return words as plain values."""
    return [
        {"word": word.word, "start": word.start, "end": word.end, "confidence": round(word.confidence, 4)}
        for word in words
    ]


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    """Return a segment with all that OpenAI's has; what only its models know is empty or 0."""
    content = segment.text.encode()
    logs = [math.log(max(word.confidence, LEAST_PROBABILITY)) for word in segment.words]
    return {
        "id": number,
        "seek": 0,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": sum(logs) / len(logs),
        "compression_ratio": len(content) / len(zlib.compress(content)),
        "no_speech_prob": 0.0,
    }


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(transcript.duration)}


def delta(words: Sequence[Word], is_first: bool) -> Iterator[bytes]:
    """Yield the server-sent events of words that were settled."""
    for i, word in enumerate(words):
        text = word.word if is_first and i == 0 else f" {word.word}"
        yield event({"type": "transcript.text.delta", "delta": text, "words": words_of([word])})


def done(transcript: Transcript, extra: dict[str, Any]) -> bytes:
    """Return the last server-sent event."""
    values = {"type": "transcript.text.done", "text": transcript.text, "usage": _usage(transcript)}
    return event(values | {"words": words_of(transcript.words), "duration": transcript.duration} | extra)


def event(values: dict[str, Any]) -> bytes:
    """Return a server-sent event of plain values."""
    return f"data: {json.dumps(values, ensure_ascii=False)}\n\n".encode()
