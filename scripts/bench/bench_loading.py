"""Measure how fast batches are made, in seconds of speech per second, and what each stage costs.

  python scripts/bench/bench_loading.py data/libri/cuts_train.jsonl.gz --noise NOISE_FOLDER --workers 2
  python scripts/bench/bench_loading.py data/libri/shar_train          shards instead of files

The loader alone, without a model. Each stage is measured in one process; the whole in as many as --workers says.
"""

import argparse
import itertools
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from asr.data import BatchLimits, BatchOrder, Encoding, Variation, load_cuts, make_loader
from asr.data.augmentation import GENERATED, Augmentation, AugmentationConfig
from asr.data.cuts import text_of
from asr.data.reading import read_samples
from asr.data.shards import Shards, is_sharded
from asr.features import FeatureConfig, SpecAugmentConfig
from asr.features.log_mel import LogMel
from asr.features.spec_augment import SpecAugment
from asr.text import CharacterTokenizer, normalize

RATE = 16000
SPEEDS = (0.9, 1.0, 1.1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="manifest of cuts, or folder or URL of shards")
    parser.add_argument("--noise", default="", help="folder of noise")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-seconds", type=float, default=240.0)
    parser.add_argument("--stage-seconds", type=float, default=600.0, help="of speech, for each stage")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cuts = Shards(arguments.source) if is_sharded(arguments.source) else load_cuts(arguments.source)
    if not isinstance(cuts, Shards):
        stages(cuts, arguments)
    loaders(cuts, arguments)


def stages(cuts: Sequence, arguments: argparse.Namespace) -> None:
    """Time each stage alone, in this process, on the same speech."""
    chosen = random.Random(0).sample(list(cuts), len(cuts))
    ends = list(itertools.accumulate(cut.duration for cut in chosen))
    chosen = chosen[: sum(end < arguments.stage_seconds for end in ends) + 1]
    seconds = sum(cut.duration for cut in chosen)
    samples = [read_samples(cut, RATE) for cut in chosen]
    print(f"{seconds:.0f} s of speech, {len(chosen)} utterances; one process, a second of it holds\n")
    print(f"{'stage':34} {'x real time':>12} {'ms a second of speech':>22}")

    def stage(name: str, work: Callable, items: Iterable) -> None:
        items = list(items)
        began = time.perf_counter()
        for item in items:
            work(item)
        took = time.perf_counter() - began
        print(f"{name:34} {seconds / took:12.0f} {1000 * took / seconds:22.3f}")

    def augmented(**choices) -> Callable:
        augmentation = Augmentation(AugmentationConfig(**choices), RATE)
        return lambda heard: augmentation(heard, random.Random(len(heard)))

    import soxr

    stage("read and decode", lambda cut: read_samples(cut, RATE), chosen)
    stage("speed 1.1", lambda heard: soxr.resample(heard, 1.1 * RATE, RATE), samples)
    if arguments.noise:
        stage("noise, read and mixed", augmented(noise=arguments.noise, noise_share=1), samples)
    stage("room, made up", augmented(reverberation=GENERATED, reverberation_share=1), samples)
    for codec in ("telephone", "mp3", "opus"):
        stage(f"codec {codec}", augmented(codecs=(codec,), codec_share=1), samples)
    batches = [samples[start : start + 16] for start in range(0, len(samples), 16)]
    log_mel, spec_augment = LogMel(FeatureConfig()), SpecAugment(SpecAugmentConfig())
    made: list[tuple[torch.Tensor, torch.Tensor]] = []

    def features(batch: list[np.ndarray]) -> None:
        lengths = torch.tensor([len(heard) for heard in batch])
        made.append(
            log_mel(pad_sequence([torch.from_numpy(heard) for heard in batch], batch_first=True), lengths)
        )

    stage("log-mel", features, sorted(batches, key=len))
    stage("SpecAugment", lambda pair: spec_augment(*pair), made)


def loaders(cuts: Sequence, arguments: argparse.Namespace) -> None:
    """Time whole epochs."""
    tokenizer = CharacterTokenizer.from_texts(normalize(text_of(cut) or "", "basic") for cut in cuts)
    encoding = Encoding(LogMel(FeatureConfig()), tokenizer, "basic")
    settings: dict[str, dict[str, Any]] = {"log-mel, SpecAugment": {}, "the same, speed": {"speeds": SPEEDS}}
    if arguments.noise:
        noise = Augmentation(AugmentationConfig(noise=arguments.noise, noise_share=1), RATE)
        settings["the same, speed, noise on all"] = {"speeds": SPEEDS, "augmentation": noise}
    seconds = cuts.seconds if isinstance(cuts, Shards) else sum(cut.duration for cut in cuts)
    print(f"\nwhole epochs of {seconds / 3600:.2f} h by {arguments.workers} workers")
    print(f"{'':34} {'x real time':>12} {'padding %':>10} {'batches':>8}")
    for name, choices in settings.items():
        loader = make_loader(
            cuts,
            encoding,
            limits=BatchLimits(arguments.batch_seconds),
            order=BatchOrder(shuffle=True, speeds=choices.get("speeds", ())),
            variation=Variation(choices.get("augmentation"), SpecAugment(SpecAugmentConfig())),
            workers=arguments.workers,
        )
        next(iter(make_loader(cuts[:1], encoding)))
        frames = padded = 0
        began = time.perf_counter()
        for batch in loader:
            frames += int(batch.feature_lengths.sum())
            padded += batch.features.shape[0] * batch.features.shape[1]
        took = time.perf_counter() - began
        print(f"{name:34} {seconds / took:12.0f} {100 * (1 - frames / padded):10.1f} {len(loader):8}")


if __name__ == "__main__":
    main()
