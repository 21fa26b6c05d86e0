"""Measure what it costs to recognize utterances as one long recording instead of one by one.

  python scripts/long_audio.py --model runs/an4/bundle --manifest data/an4/cuts_dev.jsonl.gz

The utterances of a manifest are joined end to end, speaker after speaker and in random orders, and transcribed as one
recording: in windows, as long recordings are, and in one piece, which tells what the seams cost from what the model
makes of utterances that follow each other. Printed are the word error rates of all ways.
"""

import argparse
import random
from unittest import mock

import numpy as np

import asr
import asr.long_audio
from asr.data.cuts import load_cuts, speaker_of, text_of
from asr.data.reading import read_samples
from asr.text import normalize


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="BUNDLE")
    parser.add_argument("--manifest", required=True)
    parser.add_argument(
        "--orders", type=int, default=3, help="random orders, beside that by speaker (default: 3)"
    )
    arguments = parser.parse_args()
    model = asr.load(arguments.model)
    cuts = sorted(load_cuts(arguments.manifest), key=lambda cut: speaker_of(cut) or "")
    references = [normalize(text_of(cut) or "", model.bundle.normalizer) for cut in cuts]
    samples = [read_samples(cut, model.sample_rate) for cut in cuts]
    apart = [transcript.text for transcript in model.transcribe(samples)]  # type: ignore[union-attr]
    hours = sum(map(len, samples)) / model.sample_rate / 3600
    print(f"{len(cuts)} utterances, {hours:.2f} h; apart: WER {100 * asr.score(references, apart).wer:.2f} %")
    orders = {"by speaker": list(range(len(cuts)))}
    for seed in range(arguments.orders):
        orders[f"shuffled {seed}"] = random.Random(seed).sample(range(len(cuts)), len(cuts))
    for name, order in orders.items():
        recording = np.concatenate([samples[i] for i in order])
        truth = [" ".join(references[i] for i in order)]
        rates = []
        for longest in (asr.long_audio.WINDOW_SECONDS, len(recording) / model.sample_rate):
            with mock.patch.object(asr.long_audio, "WINDOW_SECONDS", longest):
                rates.append(asr.score(truth, [model.transcribe(recording).text]).wer)  # type: ignore[union-attr]
        windows, one_piece = (f"{100 * rate:.2f} %" for rate in rates)
        print(f"joined {name:12} WER in windows {windows}, in one piece {one_piece}")


if __name__ == "__main__":
    main()
