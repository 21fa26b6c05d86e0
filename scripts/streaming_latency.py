"""Measure what it costs to recognize speech while it is spoken: word error rate and latency by chunk and look-ahead.

  python scripts/streaming_latency.py --model runs/an4/bundle --manifest data/an4/cuts_dev.jsonl.gz

Each utterance of a manifest is a stream of its own, fed in blocks of 20 ms. A word's latency is the audio heard from
its end, by the alignment of the reference, to its being given out; words that the end of the stream brings out are
given out at that end. Counted are the words that the stream got right. Computing time is not in it; `times real time`
says how much there is to spare.
"""

import argparse
import time
from difflib import SequenceMatcher
from itertools import product

import numpy as np

import asr
from asr.data.cuts import load_cuts, text_of
from asr.data.reading import read_samples
from asr.recognizer import Recognizer
from asr.text import normalize

BLOCK_SECONDS = 0.02


def stream(
    model: Recognizer, samples: np.ndarray, chunk: float, look_ahead: float | None
) -> list[tuple[str, float]]:
    """Recognize samples (time,) as they come: each word with the second at which it was given out."""
    recognizer, block = model.stream(chunk, look_ahead), round(BLOCK_SECONDS * model.sample_rate)
    given = []
    for end in range(block, len(samples) + block, block):
        heard = min(end, len(samples)) / model.sample_rate
        given += [(word.word, heard) for word in recognizer.feed(samples[end - block : end])]
    return given + [(word.word, len(samples) / model.sample_rate) for word in recognizer.finish()]


def latencies(given: list[tuple[str, float]], spoken: list[tuple[str, float]]) -> list[float]:
    """Seconds from a spoken word's end to its being given out, for the words that were recognized."""
    matcher = SequenceMatcher(None, [word for word, _ in spoken], [word for word, _ in given], autojunk=False)
    return [
        given[match.b + i][1] - spoken[match.a + i][1]
        for match in matcher.get_matching_blocks()
        for i in range(match.size)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="BUNDLE")
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--chunk", type=float, nargs="+", default=[0.2, 0.5, 1.0], metavar="SECONDS")
    parser.add_argument("--look-ahead", type=float, nargs="+", default=[0.2, 0.5, 1.0], metavar="SECONDS")
    arguments = parser.parse_args()
    model = asr.load(arguments.model)
    cuts = list(load_cuts(arguments.manifest))
    references = [normalize(text_of(cut) or "", model.bundle.normalizer) for cut in cuts]
    samples = [read_samples(cut, model.sample_rate) for cut in cuts]
    spoken = [
        [(word.word, word.end) for word in model.align(each, reference).words]
        for each, reference in zip(samples, references, strict=True)
    ]
    whole = [transcript.text for transcript in model.transcribe(samples)]  # type: ignore[union-attr]
    seconds = sum(map(len, samples)) / model.sample_rate
    print(f"{len(cuts)} utterances, {seconds / 60:.1f} minutes")
    print("chunk  look-ahead    WER  latency: mean     90 %  times real time")
    print(f"the whole utterance {100 * asr.score(references, whole).wer:5.2f} %")
    bidirectional = model.bundle.model.bidirectional
    for chunk, look_ahead in product(arguments.chunk, arguments.look_ahead if bidirectional else [0.0]):
        begin = time.perf_counter()
        given = [stream(model, each, chunk, look_ahead) for each in samples]
        spent = time.perf_counter() - begin
        wer = asr.score(references, [" ".join(word for word, _ in each) for each in given]).wer
        late = [second for pair in zip(given, spoken, strict=True) for second in latencies(*pair)]
        print(
            f"{chunk:4.2f} s  {look_ahead:8.2f} s  {100 * wer:5.2f} %  {np.mean(late):12.2f} s  "
            f"{np.quantile(late, 0.9):5.2f} s  {seconds / spent:15.0f}"
        )


if __name__ == "__main__":
    main()
