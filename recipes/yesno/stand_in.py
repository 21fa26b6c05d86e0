"""Write a stand-in for waves_yesno, to try the recipe where the corpus is not at hand.

  python recipes/yesno/stand_in.py --output-dir data/waves_yesno_stand_in
  python recipes/yesno/stand_in.py --output-dir data/hard --recordings fsdd/recordings --speaker theo --digits 1 9

Both write 60 files 1_0_1_1_0_0_1_0.wav in the corpus's own layout: 8 kHz, eight words each of one voice. The first
synthesizes Hebrew yes (1, "ken") and no (0, "lo") with espeak-ng, with pauses and a little noise. The second, harder
one takes real speech: two digits of a speaker of the Free Spoken Digit Dataset for the two words, louder and softer,
faster and slower, with pauses or none, in one room with its noise; what the test files hold, the training files do not.
Neither tells how the real recordings go.
"""

import argparse
import random
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr

from asr.data.augmentation import make_room, mix, reverberate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "digits"))
from synthesize import SAMPLE_RATE, Espeak

FILES, WORDS = 60, 8
WRITTEN_RATE = 8000
NOISE_DB = 20  # below the words, where they are real
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


def write_hard(folder: Path, seed: int, recordings: Path, speaker: str, digits: tuple[int, int]) -> None:
    """Write the files out of recordings DIGIT_SPEAKER_INDEX.wav; digits stand for yes and for no."""
    chance, generator = random.Random(seed), np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    room = make_room(0.2, WRITTEN_RATE, generator)
    names = sorted(f"{number:0{WORDS}b}" for number in chance.sample(range(2**WORDS), FILES))
    for place, words in enumerate(names):
        parts = [_pause(chance)]
        for word in words:
            # lhotse takes every second file for the test set.
            found = sorted(recordings.glob(f"{digits[word == '0']}_{speaker}_*.wav"))[place % 2 :: 2]
            samples, rate = soundfile.read(chance.choice(found), dtype="float32")
            samples = soxr.resample(samples, rate, rate * chance.uniform(0.88, 1.12))
            samples *= 10 ** (chance.uniform(-4, 4) / 20) / np.abs(samples).max()
            parts += [samples, _pause(chance) if chance.random() < 0.8 else np.zeros(0, np.float32)]
        samples = reverberate(np.concatenate(parts).astype(np.float32), room)
        noise = generator.standard_normal(len(samples)).astype(np.float32)
        samples = mix(samples, noise, NOISE_DB)
        samples *= chance.uniform(0.2, 0.8) / np.abs(samples).max()
        soundfile.write(folder / f"{'_'.join(words)}.wav", samples, WRITTEN_RATE, subtype="PCM_16")


def _pause(chance: random.Random) -> np.ndarray:
    return np.zeros(int(chance.uniform(0.05, 0.6) * WRITTEN_RATE), np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recordings", type=Path, metavar="DIR", help="of the Free Spoken Digit Dataset")
    parser.add_argument("--speaker", default="theo")
    parser.add_argument(
        "--digits", type=int, nargs=2, default=(1, 9), metavar="DIGIT", help="for yes and for no"
    )
    arguments = parser.parse_args()
    if arguments.recordings:
        write_hard(
            arguments.output_dir, arguments.seed, arguments.recordings, arguments.speaker, arguments.digits
        )
        return 0
    write(arguments.output_dir, arguments.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
