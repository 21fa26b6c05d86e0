"""Commands run by a line, and small corpora and models that tests make themselves."""

import json
import shlex
import types
from pathlib import Path

import numpy as np
import soundfile
import torch

from asr.engines.torch_engine import TorchEngine
from asr.features import FeatureConfig
from asr.features.log_mel import LogMel
from asr.model import AcousticModel
from asr.model_config import FrontEndConfig, ModelConfig
from asr.recognizer import Recognizer
from asr.text import CharacterTokenizer
from asr.torch_bundle import TorchBundle


def run_asr(line: str, **values: object) -> int:
    """Run `asr LINE` in this process and return its exit status; {name} stands for a value, with its spaces."""
    from asr.cli import main

    return main([part.format(**values) for part in shlex.split(line)])


RATE = 16000
TONES = {"a": 400.0, "b": 1100.0, "c": 2500.0}  # Hz; a letter is a tone, a word one to three letters


def say(text: str, generator: np.random.Generator) -> np.ndarray:
    """Speak a text of a, b, c as tones of 0.12 s, with a pause between letters and a longer one for a space."""
    parts = [np.zeros(1600)]
    for letter in text:
        if letter == " ":
            parts.append(np.zeros(4800))
        else:
            time = np.arange(1920) / RATE
            parts += [0.3 * np.sin(2 * np.pi * TONES[letter] * time) * np.hanning(1920), np.zeros(800)]
    samples = np.concatenate([*parts, np.zeros(800)])
    return (samples + 0.003 * generator.standard_normal(len(samples))).astype(np.float32)


def make_corpus(folder: Path, utterances: int = 24, seed: int = 0) -> Path:
    """Write wav files with same-named .txt and a NeMo manifest `all.jsonl`; give the manifest."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(utterances):
        words = [
            "".join(generator.choice(list("abc"), generator.integers(1, 4)))
            for _ in range(generator.integers(1, 4))
        ]
        text = " ".join(words)
        path = folder / f"utterance{index:02}.wav"
        soundfile.write(path, say(text, generator), RATE)
        path.with_suffix(".txt").write_text(text + "\n", "utf-8")
        lines.append(json.dumps({"audio_filepath": path.name, "text": text, "speaker": f"s{index % 6}"}))
    manifest = folder / "all.jsonl"
    manifest.write_text("\n".join(lines) + "\n", "utf-8")
    return manifest


def prepare_corpus(folder: Path, utterances: int) -> Path:
    """Make a corpus in `folder` with manifests cuts_train and cuts_dev in its `cuts`; return the folder."""
    manifest = make_corpus(folder / "audio", utterances)
    line = "prepare manifest {manifest} --output-dir {cuts} --dev-fraction 0.2"
    assert run_asr(line, manifest=manifest, cuts=folder / "cuts") == 0
    return folder


SMALL_MODEL = ModelConfig(
    front_end=FrontEndConfig(channels=(4, 4), strides=((2, 2), (1, 2))), layers=1, hidden_size=16, dropout=0.0
)


def make_bundle() -> TorchBundle:
    """Give an untrained bundle."""
    torch.manual_seed(3)
    tokenizer = CharacterTokenizer([" ", "a", "b", "c"])
    log_mel = LogMel(FeatureConfig(n_mels=20))
    model = AcousticModel(SMALL_MODEL, 20, tokenizer.vocab_size).eval()
    return TorchBundle(model, log_mel, tokenizer, "basic", {"dev_wer": 0.5, "epoch": 3})


def recognizer_of(bundle: TorchBundle, **options) -> Recognizer:
    """Make a recognizer of modules in memory."""
    saved = bundle.bundle()
    return Recognizer(saved, TorchEngine(saved, "cpu"), **options)


def log_probs_of(logits: torch.Tensor, lengths=None) -> list[np.ndarray]:
    """Give what decoders take of logits (batch, frame, token)."""
    from asr import ctc

    counts = [logits.shape[1]] * len(logits) if lengths is None else lengths
    return ctc.log_probs_of(logits, torch.as_tensor(counts))


SETTINGS = (
    "--model.layers=1 --model.hidden_size=24 --model.dropout=0 --model.front_end.channels=[8,8] "
    "--model.front_end.strides=[[2,2],[1,2]] --features.n_mels=24 --data.batch_seconds=12 --data.workers=0 "
    "--optimizer.learning_rate=0.02 --optimizer.warmup_epochs=2 --spec_augment.frequency_masks=0 "
    "--spec_augment.time_masks=0"
).split()


def train_arguments(corpus: Path, run: Path, *more: str) -> list[str]:
    """Give the command line that trains a small model on a corpus prepared into `cuts`."""
    return [
        "train",
        f"--data.train={corpus}/cuts/cuts_train.jsonl.gz",
        f"--data.dev={corpus}/cuts/cuts_dev.jsonl.gz",
        f"--run.folder={run}",
        *SETTINGS,
        *more,
    ]


class FakeWandb(types.ModuleType):
    """Weights & Biases as far as a run uses it; notes what it receives."""

    class Error(Exception):
        pass

    def __init__(self):
        super().__init__("wandb")
        self.calls, self.logged, self.ends = [], [], []
        self.refuses = False

    def init(self, **settings):
        if self.refuses:
            raise self.Error("not logged in")
        self.calls.append(settings)
        return self

    id = "abc"

    def define_metric(self, name, step_metric=None):
        pass

    def log(self, values):
        self.logged.append(values)

    def finish(self, exit_code):
        self.ends.append(exit_code)
