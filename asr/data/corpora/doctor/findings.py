"""What a check can find, and what it makes of it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from asr.data.cuts import Cut
from asr.text import Tokenizer

# What may be wrong, in the order of the report. Of an utterance with several faults in its audio the first is named.
KINDS = {
    "unreadable": "audio that is missing or cannot be decoded",
    "truncated": "audio that ends before its header says",
    "silent": "audio without a sound",
    "clipped": "audio cut off at its peaks",
    "rate": "sample rates other than the manifest's, or below the model's and those of most files",
    "duration": "durations that differ from the file's",
    "duplicate": "ids that were there before",
    "empty": "transcripts without a letter",
    "letters": "letters outside the alphabet",
    "too long": "transcripts that CTC cannot align with so few frames",
    "pace": "far longer or shorter than others with so many words and letters",
    "mismatch": "transcripts that the model does not recognize in their audio",
    "repeated audio": "audio that an earlier utterance has too",
    "same audio": "audio that also occurs in a later manifest",
    "same sentence": "transcripts that also occur in a later manifest, as they do with a small vocabulary",
    "same speaker": "utterances of speakers who also speak in a later manifest",
}
# By design of many corpora: reported, but not removed by a repair unless asked for.
MAY_BE_MEANT = frozenset({"same sentence", "same speaker"})


@dataclass(frozen=True)
class Finding:
    """One fault of one utterance.

    Attributes:
        kind: a key of KINDS.
        split: name of the manifest.
        index: place of the utterance in it.
        id: of the utterance.
        detail: what was found.
    """

    kind: str
    split: str
    index: int
    id: str
    detail: str


@dataclass(frozen=True)
class Target:
    """The model that the corpus is meant for.

    Attributes:
        normalizer: that transcripts pass first.
        tokenizer: with its alphabet; None takes each character for a token and the corpus's common ones for known.
        frames: seconds of audio -> frames of logits; None skips the check of lengths.
        sample_rate: of its features, in Hz.
    """

    normalizer: str = "basic"
    tokenizer: Tokenizer | None = None
    frames: Callable[[float], int] | None = None
    sample_rate: int = 16000


@dataclass(frozen=True)
class CheckReport:
    """The outcome of a check.

    Attributes:
        utterances, hours: that were looked at.
        findings: in the order of KINDS.
    """

    utterances: int
    hours: float
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind that was found."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def faulty(self, meant: Iterable[str] = MAY_BE_MEANT) -> set[tuple[str, int]]:
        """Return (split, index) of the utterances with a fault of another kind than these."""
        return {(item.split, item.index) for item in self.findings if item.kind not in meant}

    def as_dict(self) -> dict[str, Any]:
        """Return what a machine reads."""
        return {
            "utterances": self.utterances,
            "hours": round(self.hours, 4),
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def as_text(self, examples: int = 3) -> str:
        """Return what people read: counts, and the first few of each kind."""
        lines = [f"{self.utterances} utterances, {self.hours:.2f} h"]
        for kind, count in self.counts.items():
            lines.append(f"{count:8} {kind}: {KINDS[kind]}")
            shown = [finding for finding in self.findings if finding.kind == kind][:examples]
            lines += [f"{'':10}{finding.split} {finding.id}: {finding.detail}" for finding in shown]
        return "\n".join(lines if self.findings else [*lines, "nothing wrong was found"])


def shared(
    kind: str,
    splits: Mapping[str, Sequence[Cut]],
    keys: Mapping[str, Sequence[tuple[Any, str]]],
) -> list[Finding]:
    """Find utterances whose key, shown as the text beside it, is in a later split as well."""
    findings = []
    names = list(splits)
    for place, name in enumerate(names):
        later: dict[Any, str] = {}
        for other in reversed(names[place + 1 :]):
            later.update(
                (key, f"{other} {cut.id}") for cut, (key, _) in zip(splits[other], keys[other], strict=True)
            )
        for index, (cut, (key, shown)) in enumerate(zip(splits[name], keys[name], strict=True)):
            if key and key in later:
                findings.append(Finding(kind, name, index, cut.id, f"{shown} is that of {later[key]}"))
    return findings
