"""Measure how silence around the speech and a recording's level change the word error rate.

  python scripts/silence_and_level.py --model asr/bundles/an4 --manifest data/an4/cuts_dev.jsonl.gz

Each utterance of a manifest is put behind three seconds of digital silence, behind and between as much of its own
quietest moment, and made quieter and louder; what would not fit into 16 bits is clipped, as a microphone does.
"""

import argparse
from collections.abc import Callable

import numpy as np

import asr
from asr.data.cuts import load_cuts, text_of
from asr.data.reading import read_samples
from asr.text import normalize

SECONDS = 3.0
MOMENT = 0.3  # seconds, of which the noise is made
DECIBELS = (-30, -20, -10, 10)


def own_noise(samples: np.ndarray, rate: int) -> np.ndarray:
    """Repeat the quietest moment of samples (time,) for SECONDS, each time with the other sign."""
    moment = min(round(MOMENT * rate), len(samples))
    begin = int(np.convolve(samples.astype(np.float64) ** 2, np.ones(moment), "valid").argmin())
    quiet = samples[begin : begin + moment]
    return np.concatenate([quiet * (-1) ** i for i in range(round(SECONDS * rate / moment))])


def changes(rate: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Name what is done to samples (time,)."""
    silence = np.zeros(round(SECONDS * rate), np.float32)
    louder = {
        f"{decibels:+d} dB": lambda x, by=10 ** (decibels / 20): np.clip(by * x, -1, 1)
        for decibels in DECIBELS
    }
    return {
        "as it is": lambda x: x,
        f"{SECONDS:g} s of digital silence in front": lambda x: np.concatenate([silence, x]),
        f"{SECONDS:g} s of its own noise in front": lambda x: np.concatenate([own_noise(x, rate), x]),
        "and behind": lambda x: np.concatenate([own_noise(x, rate), x, own_noise(x, rate)]),
        **louder,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="BUNDLE")
    parser.add_argument("--manifest", required=True)
    arguments = parser.parse_args()
    model = asr.load(arguments.model)
    cuts = list(load_cuts(arguments.manifest))
    references = [normalize(text_of(cut) or "", model.bundle.normalizer) for cut in cuts]
    utterances = [read_samples(cut, model.sample_rate) for cut in cuts]
    for name, change in changes(model.sample_rate).items():
        heard = model.transcribe([change(samples).astype(np.float32) for samples in utterances])
        rate = asr.score(references, [transcript.text for transcript in heard]).wer  # type: ignore[union-attr]
        print(f"{name:34}  WER {100 * rate:6.2f} %", flush=True)


if __name__ == "__main__":
    main()
