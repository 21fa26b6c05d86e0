"""Small corpora, generated in the layouts in which they are published."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

WriteAudio = Callable[..., Path]


@pytest.fixture(scope="session")
def write_audio() -> WriteAudio:
    """Write (seconds) of quiet noise to a path, in the format that its ending names."""

    def write(path: Path, seconds: float = 1.0, sample_rate: int = 16000, channels: int = 1) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(zlib.crc32(str(path).encode()))
        samples = 0.1 * generator.standard_normal((round(seconds * sample_rate), channels))
        kind = {".sph": "NIST", ".opus": "OGG", ".ogg": "OGG"}.get(path.suffix)
        subtype = {".opus": "OPUS", ".ogg": "OPUS", ".sph": "PCM_16"}.get(path.suffix)
        soundfile.write(path, samples, sample_rate, format=kind, subtype=subtype)
        return path

    return write


@pytest.fixture
def an4(tmp_path, write_audio) -> Path:
    """AN4's official layout, train and test: 12 + 3 speakers of three utterances."""
    root = tmp_path / "corpus" / "an4"
    for split, folder, speakers in (
        ("train", "an4_clstk", [f"{'fm'[index % 2]}s{index:02d}" for index in range(12)]),
        ("test", "an4test_clstk", ["fta", "mtb", "mtc"]),
    ):
        ids = [(speaker, f"an{number}-{speaker}-b") for speaker in speakers for number in range(3)]
        # As published, only the training transcripts are wrapped in <s> and </s>.
        line = "<s> {} </s> ({})" if split == "train" else "{} ({})"
        for index, (speaker, name) in enumerate(ids):
            write_audio(root / "wav" / folder / speaker / f"{name}.sph", 0.5 + 0.1 * (index % 7))
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc" / f"an4_{split}.fileids").write_text(
            "".join(f"{folder}/{speaker}/{name}\n" for speaker, name in ids)
        )
        (root / "etc" / f"an4_{split}.transcription").write_text(
            "".join(line.format("YES NO", name) + "\n" for _, name in ids)
        )
    return root
