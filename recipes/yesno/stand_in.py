"""Synthesize a stand-in for waves_yesno with espeak-ng, to try the recipe where the corpus is not at hand.

  python recipes/yesno/stand_in.py --output-dir data/waves_yesno_stand_in

Written are 60 files 1_0_1_1_0_0_1_0.wav in the corpus's own layout: 8 kHz, eight words each, Hebrew yes (1, "ken")
or no (0, "lo"), one voice, with pauses between the words and a little noise. It says nothing about the real ones.
"""

import argparse
import random
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "digits"))
from synthesize import SAMPLE_RATE, Espeak

FILES, WORDS = 60, 8
WRITTEN_RATE = 8000
VOICE = "sem/he+m3"
SPELLING = {"1": "כן", "0": "לא"}


def speak(espeak: Espeak, word: str, chance: random.Random) -> np.ndarray:
    """Return 1 (yes) or 0 (no), never spoken twice alike: (time,) float32 at 16 kHz, without silence around it."""
    samples, _ = espeak.say(
        SPELLING[word],
        VOICE,
        rate=chance.randint(110, 160),
        pitch=chance.randint(35, 50),
        pitch_range=chance.randint(30, 60),
    )
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def write(folder: Path, seed: int) -> None:
    """Write the files; no two have the same words."""
    chance, generator = random.Random(seed), np.random.default_rng(seed)
    espeak = Espeak(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in chance.sample(range(2**WORDS), FILES):
        words = f"{number:0{WORDS}b}"
        parts = [np.zeros(int(chance.uniform(0.3, 0.8) * SAMPLE_RATE), np.float32)]
        for word in words:
            pause = np.zeros(int(chance.uniform(0.15, 0.5) * SAMPLE_RATE), np.float32)
            parts += [speak(espeak, word, chance), pause]
        samples = soxr.resample(np.concatenate(parts), SAMPLE_RATE, WRITTEN_RATE)
        samples = 0.3 * samples / np.abs(samples).max() + 0.002 * generator.standard_normal(len(samples))
        soundfile.write(folder / f"{'_'.join(words)}.wav", samples, WRITTEN_RATE, subtype="PCM_16")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write(arguments.output_dir, arguments.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
