"""Readers of the forms in which people keep speech and transcripts; they give Utterances, no audio."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr.audio import audio_files, existing
from asr.data.corpora.fields import (
    channel_of,
    id_of,
    located,
    name_of,
    read_lines,
    seconds_of,
    suffix_of_channel,
    suffix_of_start,
    traits_of,
)
from asr.data.corpora.tables import TRAIT_COLUMNS, read_table
from asr.data.corpora.utterances import Utterance
from asr.errors import ManifestError


def read_manifest(source: Path) -> tuple[list[Utterance], list[str]]:
    """Recognize what `source` is and read it.

    A NeMo manifest (.json, .jsonl), a table (.csv, .tsv, .psv), a Kaldi data folder (with wav.scp and text), or a
    folder of audio with same-named .txt files. Returns the utterances and a line for each entry that had to
    be left out. Raises ManifestError if it is none of these or says nothing.
    """
    if not source.exists():
        raise ManifestError(f"there is no {source}; expected a manifest file or a folder")
    if source.is_dir():
        reader = read_kaldi if (source / "wav.scp").exists() else read_folder
    elif source.suffix.lower() in (".csv", ".tsv", ".psv"):
        reader = read_table
    elif source.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        reader = read_nemo
    else:
        raise ManifestError(
            f"{source} is no manifest known here; expected NeMo lines (.json, .jsonl), a table (.csv, .tsv), "
            "a Kaldi data folder, or a folder of audio with same-named .txt files"
        )
    problems: list[str] = []
    utterances = list(reader(source, problems))
    if not utterances:
        raise ManifestError(with_problems(f"{source} holds no utterance that can be used", problems))
    return utterances, problems


def with_problems(message: str, problems: list[str]) -> str:
    """Add to what ended the reading of a corpus what had been left out by then, which may be why."""
    return "\n".join([message, *(f"{len(problems)} left out, the first: {first}" for first in problems[:1])])


def read_nemo(source: Path, problems: list[str]) -> Iterator[Utterance]:
    """Read JSON lines with audio_filepath and text, optionally offset and duration (seconds), channel (counted from 0),
    speaker and lang.

    Relative paths start at the manifest's folder or, where there is no such file, at the current one. The id is the
    path; with an offset or a channel, these follow.
    """
    for number, line in enumerate(read_lines(source), 1):
        if not line.strip():
            continue
        where = f"line {number} of {source}"
        try:
            entry = json.loads(line)
        except ValueError:
            raise ManifestError(f"{where} is not JSON; expected NeMo's one JSON object a line") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("audio_filepath"), str):
            found = ", ".join(entry) if isinstance(entry, dict) else type(entry).__name__
            raise ManifestError(
                f"{where} names no audio_filepath (it has {found}); expected NeMo's one JSON object a line"
            )
        if not isinstance(entry.get("text"), str):
            problems.append(f"{where}: no text")
            continue
        try:
            start, duration = seconds_of(entry.get("offset")), seconds_of(entry.get("duration"))
        except (TypeError, ValueError):
            problems.append(f"{where}: offset and duration must be seconds, not negative")
            continue
        name = entry["audio_filepath"]
        if not name.strip():
            problems.append(f"{where}: audio_filepath is empty")
            continue
        try:
            channel = channel_of(entry.get("channel"))
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        yield Utterance(
            id=id_of(name) + suffix_of_start(start) + suffix_of_channel(channel),
            audio=located(name, (source.parent, Path())),
            text=entry["text"],
            speaker=name_of(entry.get("speaker")),
            gender=name_of(entry.get("gender")),
            language=name_of(entry.get("lang")),
            start=start,
            duration=duration,
            channel=channel,
            traits=traits_of({name: entry.get(name) for name in TRAIT_COLUMNS}),
        )


def read_kaldi(source: Path, problems: list[str]) -> Iterator[Utterance]:
    """Read a Kaldi data folder: wav.scp and text, optionally segments, reco2file_and_channel, utt2spk, spk2gender and
    spk2age.

    Relative paths start at this folder, at one of the two above it, or at the current one. A wav.scp entry
    that is a command (it ends in `|`) is left out: preparing a corpus runs no command that a file names. An end of -1
    is the file's end. A channel is the fifth field of segments, counted from 0, or A, B, ... of reco2file_and_channel,
    where the file has several.
    """
    files = _kaldi_table(source / "wav.scp", problems)
    texts = _kaldi_table(source / "text", problems)
    speakers, genders, calls, *traits = (
        _kaldi_table(source / name, problems) if (source / name).exists() else {}
        for name in (
            "utt2spk",
            "spk2gender",
            "reco2file_and_channel",
            *(f"spk2{trait}" for trait in TRAIT_COLUMNS),
        )
    )
    if (source / "segments").exists():
        segments = {key: line.split() for key, line in _kaldi_table(source / "segments", problems).items()}
    else:
        segments = {key: [key] for key in files}
    for key, segment in segments.items():
        recording, *times = segment if segment else [""]
        file = files.get(recording)
        if file is None:
            problems.append(f"{key}: its recording {recording!r} is not in {source / 'wav.scp'}")
        elif file.endswith("|"):
            problems.append(f"{key}: wav.scp gives a command instead of a file, which is not run: {file}")
        elif key not in texts:
            problems.append(f"{key}: no transcript in {source / 'text'}")
        else:
            try:
                place = _kaldi_place(times, calls.get(recording, ""))
            except (TypeError, ValueError):
                problems.append(
                    f"{key}: segments gives {' '.join(times)!r}; expected start and end in seconds"
                )
                continue
            speaker = speakers.get(key)
            of_speaker = (known.get(speaker or "") for known in traits)
            yield Utterance(
                id=key,
                audio=located(file, (source, source.parent, source.parent.parent, Path())),
                text=texts[key],
                speaker=speaker,
                gender=genders.get(speaker or ""),
                traits=traits_of(dict(zip(TRAIT_COLUMNS, of_speaker, strict=True))),
                **place,
            )


def _kaldi_place(times: list[str], call: str) -> dict[str, Any]:
    """Return an utterance's start, duration and channel; raises TypeError or ValueError for what is no such thing.

    Arguments: times, the fields of segments from the third on; call, what reco2file_and_channel says of the recording.
    """
    place: dict[str, Any] = {}
    if times:
        start, end, *channel = times
        place["start"] = seconds_of(start)
        if float(end) != -1:
            place["duration"] = seconds_of(float(end) - float(start))
        if channel:
            (number,) = channel
            return {**place, "channel": channel_of(number)}
    *_, letter = ["", *call.split()]
    if letter:
        # Sides of a call are A and B, in some corpora 1 and 2.
        channel = int(letter) - 1 if letter.isdecimal() else channel_of(letter)
        return {**place, "channel": max(channel or 0, 0), "channel_of_original": True}
    return place


def read_folder(source: Path, problems: list[str]) -> Iterator[Utterance]:
    """Read audio files at any depth, each with its transcript in a .txt file of the same name beside it.

    Where all of the audio lies in sub-folders, the name of a file's folder is taken for its speaker.
    """
    files = audio_files(
        source, lambda error: problems.append(f"the folder {error.filename} cannot be read: {error.strerror}")
    )
    if not files:
        raise ManifestError(
            with_problems(
                f"{source} holds no audio: no file in it ends as audio does (.wav, .flac, .mp3, ...)",
                problems,
            )
        )
    nested = all(path.parent != source for path in files)
    for path in files:
        transcript = existing(path.with_suffix(".txt"))
        key = id_of(str(path.relative_to(source)))
        if not transcript.is_file():
            problems.append(f"{key}: there is no transcript {transcript}")
            continue
        try:
            text = " ".join(" ".join(read_lines(transcript)).split())
        except ManifestError as error:
            problems.append(f"{key}: {error}")
            continue
        yield Utterance(
            id=key,
            audio=path,
            text=text,
            speaker="/".join(path.parent.relative_to(source).parts) if nested else None,
        )


def _kaldi_table(path: Path, problems: list[str]) -> dict[str, str]:
    """Read lines of a key and a value; an empty value is one too. Of two lines with a key the first counts."""
    table: dict[str, str] = {}
    for line in read_lines(path):
        key, _, value = line.replace("\t", " ", 1).strip().partition(" ")
        if key in table:
            problems.append(f"{key}: a second line of {path} has this key")
        elif key:
            table[key] = value.strip()
    return table
