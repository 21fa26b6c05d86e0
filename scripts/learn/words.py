"""Draw how a recording becomes words: `python scripts/learn/words.py AUDIO [FOLDER] [--model BUNDLE]`.

Writes words.png (waveform, log-mel spectrogram and the posteriors of the tokens that win somewhere) and prints each
run of frames with its best token, as greedy decoding reads them. librosa computes the spectrogram, as the reference
that the tests hold our own features against.
"""

import argparse
import itertools
from pathlib import Path

import librosa
import matplotlib
import numpy as np

import asr

LOUDEST_DB = 80.0


def runs(best: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (token, first frame, last frame) of each run of equal best tokens (frame,)."""
    found, first = [], 0
    for token, frames in itertools.groupby(best.tolist()):
        last = first + len(list(frames)) - 1
        found.append((token, first, last))
        first = last + 1
    return found


def draw(
    samples: np.ndarray, rate: int, posteriors: np.ndarray, step: float, names: list[str], path: Path
) -> None:
    """Draw samples (time,) and posteriors (frame, token); step, seconds a frame; names of all tokens."""
    from matplotlib import pyplot

    seconds = len(samples) / rate
    figure, axes = pyplot.subplots(3, 1, figsize=(9, 7), sharex=True, height_ratios=(1, 2, 2))
    axes[0].plot(np.arange(len(samples)) / rate, samples, linewidth=0.3)
    axes[0].set_ylabel("sample")
    mel = librosa.feature.melspectrogram(y=samples, sr=rate, n_fft=400, hop_length=160, n_mels=80)
    decibels = librosa.power_to_db(mel, ref=np.max, top_db=LOUDEST_DB)
    axes[1].imshow(decibels, origin="lower", aspect="auto", extent=(0, seconds, 0, 80), cmap="gray_r")
    axes[1].set_ylabel("mel band")
    times = (np.arange(len(posteriors)) + 0.5) * step
    for token in sorted(set(posteriors.argmax(1).tolist())):
        color = "0.7" if token == 0 else None
        line = axes[2].plot(times, posteriors[:, token], color=color)[0]
        peak = posteriors[:, token].argmax()
        if token:
            label = names[token].replace(" ", "␣")
            axes[2].text(
                times[peak], posteriors[peak, token] + 0.03, label, color=line.get_color(), ha="center"
            )
    axes[2].set_ylabel("posterior (gray: blank)")
    axes[2].set_ylim(-0.05, 1.15)
    axes[2].set_xlabel("seconds")
    figure.savefig(path, bbox_inches="tight", dpi=80)
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("audio")
    parser.add_argument("folder", nargs="?", type=Path, default=Path())
    parser.add_argument("--model", default="an4")
    arguments = parser.parse_args()
    matplotlib.use("agg")
    model = asr.load(arguments.model)
    samples = asr.load_audio(arguments.audio, model.sample_rate)
    (log_probs,) = model.log_probs([samples])
    step = model.bundle.seconds_per_frame
    names = ["blank", *(model.bundle.tokenizer.decode([token]) for token in range(1, log_probs.shape[1]))]
    for token, first, last in runs(log_probs.argmax(1)):
        certainty = np.exp(log_probs[first : last + 1, token].max())
        print(
            f"{first * step:5.2f} s {last - first + 1:3} frames  {names[token]!r:10} {100 * certainty:3.0f} %"
        )
    print(model.transcribe(samples).text)
    draw(samples, model.sample_rate, np.exp(log_probs), step, names, arguments.folder / "words.png")
