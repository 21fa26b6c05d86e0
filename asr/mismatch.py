"""Transcripts that belong to other audio: what a model recognizes beside what it should.

Each transcript is aligned to its audio. Per frame, its best path is so much less probable than the best path of all;
where that is far from what the corpus's other utterances have, and the model recognizes other words, the transcript is
in doubt. A model that was trained on the corpus knows it well enough, wrong transcripts included in a small share.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

from asr.data.corpora.doctor import Finding
from asr.data.cuts import Cut, text_of
from asr.data.reading import read_samples
from asr.data.shards import Shards
from asr.decoding.alignment import align
from asr.decoding.greedy import greedy
from asr.errors import AlignmentError, AudioError, TextError
from asr.recognizer import Recognizer
from asr.text import normalize
from asr.wording import short

BATCH_SECONDS = 120.0  # of audio computed together, padding included
DEVIATIONS = 6.0  # robust standard deviations from the corpus's median ...
LEAST_GAP = 0.1  # ... and so many nats a frame
LEAST_ERRORS = 0.5  # of the letters


@dataclass(frozen=True)
class Judgment:
    """What a model makes of an utterance.

    Attributes:
        split, index, id: of the utterance, as a Finding has them.
        gap: nats a frame by which the transcript's best path is less probable than the best of all.
        wer, cer: word and letter error rate of what is recognized, against the transcript.
        text, recognized: normalized.
    """

    split: str
    index: int
    id: str
    gap: float
    wer: float
    cer: float
    text: str
    recognized: str


def judge(
    model: Recognizer,
    splits: Mapping[str, Sequence[Cut]],
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Judgment]:
    """Align and recognize every utterance; those whose audio or transcript cannot be used are skipped.

    Arguments: model; splits {name: cuts or Shards}; progress wraps the loop over utterances.
    """
    judgments: list[Judgment] = []
    batch: list[tuple[str, int, Cut, np.ndarray, str, list[int]]] = []
    for split, index, cut in progress(_cuts(splits)):
        text = normalize(text_of(cut) or "", model.bundle.normalizer)
        try:
            tokens = model.bundle.tokenizer.encode(text)
            batch.append((split, index, cut, read_samples(cut, model.sample_rate), text, tokens))
        except (AudioError, TextError):
            continue
        if len(batch) * max(len(item[3]) for item in batch) > BATCH_SECONDS * model.sample_rate:
            judgments += _judged(model, batch)
            batch = []
    return judgments + list(_judged(model, batch) if batch else [])


def _cuts(splits: Mapping[str, Sequence[Cut]]) -> Iterator[tuple[str, int, Cut]]:
    """Yield (split, index, cut with its audio); shards that cannot be read are skipped."""
    for split, cuts in splits.items():
        if not isinstance(cuts, Shards):
            yield from ((split, index, cut) for index, cut in enumerate(cuts))
            continue
        first = 0
        for shard, durations in enumerate(cuts.durations):
            with suppress(AudioError):
                yield from ((split, first + index, cut) for index, cut in enumerate(cuts.open(shard)))
            first += len(durations)


def _judged(model: Recognizer, batch: Sequence[tuple]) -> Iterator[Judgment]:
    all_log_probs = model.log_probs([samples for _, _, _, samples, _, _ in batch])
    for (split, index, cut, _, text, tokens), log_probs in zip(batch, all_log_probs, strict=True):
        (best,) = greedy([log_probs])
        try:
            gap = (best.score - align(log_probs, tokens).score) / len(log_probs)
        except AlignmentError:  # empty or too long, which is found without a model
            continue
        recognized = model.bundle.tokenizer.decode(best.tokens)
        words, letters = text.split(), text.replace(" ", "")
        wer = Levenshtein.distance(words, recognized.split()) / max(len(words), 1)
        cer = Levenshtein.distance(letters, recognized.replace(" ", "")) / max(len(letters), 1)
        yield Judgment(split, index, cut.id, float(gap), wer, cer, text, recognized)


def mismatches(judgments: Sequence[Judgment]) -> list[Finding]:
    """Return the utterances whose transcripts are in doubt, the worst first."""
    if not judgments:
        return []
    gaps = np.array([judgment.gap for judgment in judgments])
    middle = float(np.median(gaps))
    reach = max(DEVIATIONS * 1.4826 * float(np.median(np.abs(gaps - middle))), LEAST_GAP)
    doubtful = [item for item in judgments if item.gap > middle + reach and item.cer > LEAST_ERRORS]
    return [
        Finding(
            "mismatch",
            item.split,
            item.index,
            item.id,
            f"{item.gap:.2f} nats a frame below the best path, usual are {middle:.2f}; WER {100 * item.wer:.0f} %: "
            f"{short(item.text)!r}, recognized {short(item.recognized)!r}",
        )
        for item in sorted(doubtful, key=lambda item: -item.gap)
    ]


def worst(judgments: Sequence[Judgment], count: int) -> str:
    """List the utterances with the largest gaps and the highest word error rates, whether in doubt or not."""
    lines = []
    for title, key in (
        ("alignment", lambda item: item.gap),
        ("word error rate", lambda item: (item.wer, item.gap)),
    ):
        lines.append(f"worst by {title}:")
        for item in sorted(judgments, key=key, reverse=True)[:count]:
            lines.append(
                f"  {item.split} {item.id}: {item.gap:.2f} nats a frame, WER {100 * item.wer:.0f} %: "
                f"{short(item.text)!r}, recognized {short(item.recognized)!r}"
            )
    return "\n".join(lines)
