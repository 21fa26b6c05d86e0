"""The short check of a corpus before training on it, and what a model asks of a corpus."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from asr.data.corpora.doctor import CheckReport, Target, check_texts
from asr.features import FeatureConfig, frame_count
from asr.model_config import FrontEndConfig
from asr.text import Tokenizer

if TYPE_CHECKING:
    from asr.data.cuts import Cut

EXAMPLES = 3  # of each kind of finding


def target_of(
    features: FeatureConfig,
    front_end: FrontEndConfig,
    normalizer: str,
    tokenizer: Tokenizer | None,
    speeds: Sequence[float] = (),
) -> Target:
    """Return what a model of this configuration asks of its corpus, at the fastest speed it is trained with.

    >>> target_of(FeatureConfig(), FrontEndConfig(), "basic", None).frames(1.0)
    26
    """
    fastest = max(speeds, default=1.0)

    def frames(seconds: float) -> int:
        samples = round(seconds / fastest * features.sample_rate)
        return front_end.output_frames(frame_count(samples, features.hop_length))

    return Target(normalizer, tokenizer, frames, features.sample_rate)


def quick_report(splits: Mapping[str, Sequence["Cut"]], target: Target) -> str:
    """Return in a few lines what is wrong with {"train": cuts, "dev": cuts} without reading audio; "" for nothing."""
    findings = check_texts(splits, target)
    if not findings:
        return ""
    report = CheckReport(sum(map(len, splits.values())), 0.0, tuple(findings))
    found = ", ".join(f"{count} {kind}" for kind, count in report.counts.items())
    first = [f"  {item.split} {item.id}: {item.kind}: {item.detail}" for item in findings[:EXAMPLES]]
    return "\n".join([f"check: {found}; `asr check` lists them", *first])
