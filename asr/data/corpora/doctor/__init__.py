"""What is wrong with a corpus, found before a training run finds it: `check_texts`, `check`."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from asr.data.corpora.doctor.audio import Examined, Reading, check_audio, in_threads
from asr.data.corpora.doctor.findings import KINDS, MAY_BE_MEANT, CheckReport, Finding, Target
from asr.data.corpora.doctor.texts import check_texts
from asr.data.cuts import Cut

__all__ = ["KINDS", "MAY_BE_MEANT", "CheckReport", "Finding", "Target", "check", "check_texts"]


def check(
    splits: Mapping[str, Sequence[Cut]],
    target: Target | None = None,
    *,
    decode: bool = True,
    examine: Callable[[Reading], Iterable[list[Examined]]] = in_threads,
    progress: Callable[[Iterable], Iterable] = iter,
    more: Sequence[Finding] = (),
) -> CheckReport:
    """Look for every fault of KINDS.

    Arguments:
        splits: {"train": cuts, ...}, what is trained on first: of two that share something, the earlier is named.
            Lists of cuts, or `Shards`.
        target: the model that they are meant for.
        decode: read the audio; else only its header, which shows no silent or clipped audio and no copies of a file.
        examine: reads the audio, piece by piece; progress wraps the loop over utterances.
        more: findings of others, as of `asr.mismatch`.
    """
    target = target or Target()
    known = {name: list(cuts) for name, cuts in splits.items()}  # of shards, what their manifests say
    told = examine(Reading.of(splits, known, target, decode))
    findings = [
        *check_audio(known, list(progress(one for piece in told for one in piece))),
        *check_texts(known, target),
        *more,
    ]
    order = {kind: place for place, kind in enumerate(KINDS)}
    names = {name: place for place, name in enumerate(splits)}
    findings.sort(key=lambda item: (order[item.kind], names[item.split], item.index))
    seconds = sum(cut.duration for cuts in known.values() for cut in cuts)
    return CheckReport(sum(map(len, known.values())), seconds / 3600, tuple(findings))
