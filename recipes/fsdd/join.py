"""Hold out recordings of the Free Spoken Digit Dataset for development, and join recordings into connected digits.

  asr prepare fsdd /path/to/fsdd -o data/fsdd --dev-fraction 0
  python recipes/fsdd/join.py data/fsdd

reads cuts_train.jsonl.gz, and cuts_test.jsonl.gz where it is there, and writes beside them

  cuts_train_joined.jsonl.gz                       to train on: single digits and joined ones
  cuts_dev_single.jsonl.gz, cuts_dev_joined.jsonl.gz     recordings 5 to 9 of each digit and speaker,
                                                   or all of one speaker with --hold-out-speaker
  cuts_test_joined.jsonl.gz                        of the test recordings

with the audio in joined/. Joined are two to seven recordings, mostly of one speaker, with pauses of up to half a second
or none. The same --seed gives the same sequences.
"""

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from asr.data.corpora.prepare import summary
from asr.data.cuts import Cut, Supervision, load_cuts, plain, speaker_of, text_of, write_cuts
from asr.errors import AsrError, ManifestError

FEWEST, MOST = 2, 7  # recordings in a sequence
LONGEST_PAUSE = 0.5  # seconds
SHARE_WITHOUT_PAUSE = 0.4
SHARE_OF_SEVERAL_SPEAKERS = 0.3
DEV_RECORDINGS = range(5, 10)  # as the usual test set is recordings 0 to 4


def hold_out(cuts: Sequence[Cut], speaker: str | None) -> tuple[list[Cut], list[Cut]]:
    """Part cuts into those to train on and those held out: one speaker, or DEV_RECORDINGS of everyone."""
    speakers = sorted({str(speaker_of(cut)) for cut in cuts})
    if speaker is not None and speaker not in speakers:
        raise ManifestError(f"no speaker {speaker} to hold out; there are {', '.join(speakers)}")
    is_dev = {
        cut.id: speaker_of(cut) == speaker if speaker else int(cut.id.rsplit("_", 1)[1]) in DEV_RECORDINGS
        for cut in cuts
    }
    train, dev = ([cut for cut in cuts if is_dev[cut.id] is wanted] for wanted in (False, True))
    if not train or not dev:
        raise ManifestError(
            f"of {len(cuts)} recordings {len(dev)} would be held out; expected recordings 5 to 9 of each digit and "
            "speaker, and others (`asr prepare fsdd ... --dev-fraction 0` keeps them all)"
        )
    return train, dev


def joined(cuts: Sequence[Cut], repeats: int, folder: Path, seed: int) -> list[Cut]:
    """Join each of the cuts into `repeats` sequences, whose audio goes into `folder`."""
    chance = random.Random(f"{seed} {folder.name}")
    folder.mkdir(parents=True, exist_ok=True)
    sequences = []
    for _ in range(repeats):
        for part in _parts(cuts, chance):
            while part:
                count = min(chance.randint(FEWEST, MOST), len(part))
                together, part = part[:count], part[count:]
                sequences.append(_join(together, chance, folder / f"{folder.name}-{len(sequences):05}.wav"))
    return sequences


def _parts(cuts: Sequence[Cut], chance: random.Random) -> Iterator[list[Cut]]:
    """Share shuffled cuts out: to each speaker their own, and some to sequences of several speakers."""
    parts: dict[str | None, list[Cut]] = {}
    for cut in chance.sample(cuts, len(cuts)):
        of_several = chance.random() < SHARE_OF_SEVERAL_SPEAKERS
        parts.setdefault(None if of_several else speaker_of(cut), []).append(cut)
    yield from parts.values()


def _join(cuts: Sequence[Cut], chance: random.Random, path: Path) -> Cut:
    """Append cuts with a pause, or none, before each and after the last; write the audio and give its cut."""

    def pause() -> float:
        return 0.0 if chance.random() < SHARE_WITHOUT_PAUSE else chance.uniform(0, LONGEST_PAUSE)

    first, *others = (cut.to_lhotse() for cut in cuts)
    sequence = first.pad(first.duration + pause(), direction="left")
    for cut in others:
        sequence = sequence.pad(sequence.duration + pause()).append(cut)
    written = plain(sequence.pad(sequence.duration + pause()).save_audio(path).with_id(path.stem))
    speakers = {speaker_of(cut) for cut in cuts}
    written.supervisions = [
        Supervision(
            id=path.stem,
            recording_id=path.stem,
            start=0.0,
            duration=written.duration,
            text=" ".join(text_of(cut) or "" for cut in cuts),
            language="English",
            speaker=speakers.pop() if len(speakers) == 1 else "several",
        )
    ]
    return written


def prepare(folder: Path, speaker: str | None, repeats: int, seed: int) -> dict[str, list[Cut]]:
    """Write the manifests and give what they hold, by name."""
    folder = folder.resolve()  # the manifests name their audio wherever they are read from
    train, dev = hold_out(load_cuts(folder / "cuts_train.jsonl.gz"), speaker)
    written = {
        "train_joined": train + joined(train, repeats, folder / "joined" / "train", seed),
        "dev_single": dev,
        "dev_joined": joined(dev, 2, folder / "joined" / "dev", seed),
    }
    if (folder / "cuts_test.jsonl.gz").is_file():
        written["test_joined"] = joined(
            load_cuts(folder / "cuts_test.jsonl.gz"), 2, folder / "joined" / "test", seed
        )
    for name, cuts in written.items():
        write_cuts(cuts, folder, name)
    return written


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where `asr prepare` wrote its manifests")
    parser.add_argument(
        "--hold-out-speaker", metavar="SPEAKER", help="for development, instead of recordings 5 to 9"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=2,
        metavar="N",
        help="sequences that each recording goes into (default 2)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sequences (default 0)")
    arguments = parser.parse_args()
    try:
        written = prepare(arguments.folder, arguments.hold_out_speaker, arguments.repeats, arguments.seed)
    except AsrError as error:
        print(f"cannot join: {error}", file=sys.stderr)
        return 1
    print(summary(written))
    if "test_joined" not in written:
        print(f"no test recordings: there is no {arguments.folder / 'cuts_test.jsonl.gz'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
