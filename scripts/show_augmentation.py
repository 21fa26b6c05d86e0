"""Show what each augmentation does to a recording: a spectrogram picture and a wav file of each.

python scripts/show_augmentation.py speech.flac --output-dir shown --noise NOISE_FOLDER --rooms RIR_FOLDER
"""

import argparse
import random
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from asr.audio import load_audio
from asr.data.augmentation import CODECS, GENERATED, Augmentation, AugmentationConfig
from asr.features import FeatureConfig, SpecAugmentConfig
from asr.features.log_mel import LogMel
from asr.features.spec_augment import SpecAugment

RATE = 16000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio")
    parser.add_argument("--output-dir", type=Path, default=Path("augmentation"))
    parser.add_argument("--noise", default="", help="folder of noise")
    parser.add_argument("--rooms", default="", help="folder of room impulse responses")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    samples = load_audio(arguments.audio, RATE)
    heard = {name: change(samples) for name, change in _changes(arguments).items()}
    for name, result in heard.items():
        soundfile.write(arguments.output_dir / f"{name.replace(' ', '_')}.wav", result, RATE)
    pictures = {name: _log_mel(result) for name, result in heard.items()}
    pictures["SpecAugment"] = _masked(samples, arguments.seed)
    for name, picture in pictures.items():  # one by one, and all beside each other
        _draw({name: picture}, arguments.output_dir / f"{name.replace(' ', '_')}.png")
    _draw(pictures, arguments.output_dir / "all.png")
    print(f"{len(heard)} recordings and {len(pictures) + 1} pictures are in {arguments.output_dir}")


def _changes(arguments: argparse.Namespace) -> dict:
    """Name each augmentation at its strongest default: {name: samples -> samples}."""

    def augment(**choices):
        augmentation = Augmentation(AugmentationConfig(**choices), RATE)
        return lambda samples: augmentation(samples, random.Random(arguments.seed))

    changes = {
        "as recorded": lambda samples: samples,
        "speed 0.9": lambda samples: soxr.resample(samples, 0.9 * RATE, RATE),
        "speed 1.1": lambda samples: soxr.resample(samples, 1.1 * RATE, RATE),
        "volume": augment(volume_db=12),
    }
    if arguments.noise:
        for snr in (20, 5):
            changes[f"noise {snr} dB"] = augment(noise=arguments.noise, noise_share=1, snr_db=(snr, snr))
    changes["room made up"] = augment(
        reverberation=GENERATED, reverberation_share=1, reverberation_seconds=(0.6, 0.6)
    )
    if arguments.rooms:
        changes["room recorded"] = augment(reverberation=arguments.rooms, reverberation_share=1)
    for codec in CODECS:
        changes[codec] = augment(codecs=(codec,), codec_share=1)
    return changes


def _log_mel(samples: np.ndarray) -> np.ndarray:
    features, _ = LogMel(FeatureConfig(normalize="none"))(torch.from_numpy(samples).unsqueeze(0))
    return features[0].numpy()


def _masked(samples: np.ndarray, seed: int) -> np.ndarray:
    features, lengths = LogMel(FeatureConfig())(torch.from_numpy(samples).unsqueeze(0))
    return SpecAugment(SpecAugmentConfig())(features, lengths, torch.Generator().manual_seed(seed))[0].numpy()


def _draw(pictures: dict[str, np.ndarray], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    columns = 1 if len(pictures) == 1 else 3
    rows = -(-len(pictures) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(5 * columns, 2.2 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(pictures) :]:
        axis.set_visible(False)
    for axis, (name, features) in zip(axes.flat, pictures.items(), strict=False):
        seconds = len(features) / 100
        # One scale for all, nats of power, so that loudness shows; SpecAugment's features are normalized.
        scale = (-3, 3) if name == "SpecAugment" else (-20, 4)
        axis.imshow(
            features.T,
            origin="lower",
            aspect="auto",
            vmin=scale[0],
            vmax=scale[1],
            extent=(0, seconds, 0, features.shape[1]),
            cmap="magma",
        )
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("seconds", fontsize=8)
        axis.set_ylabel("mel band", fontsize=8)
        axis.tick_params(labelsize=8)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
