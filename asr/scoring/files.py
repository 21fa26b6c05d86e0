"""Score files of transcripts: read both sides, match them, clean them and count."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.errors import TextError
from asr.scoring.calibration import Calibration, calibration_if_known
from asr.scoring.formats import Transcripts, read_transcripts
from asr.scoring.intervals import DRAWS, FEWEST_SPEAKERS
from asr.scoring.notices import writing_notice
from asr.scoring.pairing import Pairs, pair
from asr.scoring.report import ErrorReport, score
from asr.scoring.sniff import FORMS
from asr.wording import some

SPEAKER_IN_ID = "id"


@dataclass(frozen=True)
class Options:
    """How files are read, matched, cleaned and counted.

    Attributes:
        format, reference_format: of both sides, and of the reference where it differs; None: as `format`.
        normalizer: its name; None takes the one that reports name, else "none".
        rules: a file of replacements.
        speakers: a file of utterances' speakers, or "id" for an id up to its first - or _; None: as the files tell.
        mismatched: "error", "empty" or "skip", for ids that are on one side only.
        aligner, bootstrap: as of `score`.
    """

    format: str = "auto"
    reference_format: str | None = None
    normalizer: str | None = None
    rules: str | None = None
    speakers: str | None = None
    mismatched: str = "error"
    aligner: str = "jiwer"
    bootstrap: int = DRAWS


@dataclass(frozen=True)
class Scored:
    """One system's score.

    Attributes:
        report: the score itself.
        pairs: what was compared, before it was cleaned.
        calibration: of its confidences, where its file gives each word one.
        notices: what a reader should know: how much is a matter of writing, where speakers may be told from ids.
    """

    report: ErrorReport
    pairs: Pairs
    calibration: Calibration | None
    notices: tuple[str, ...]


def score_files(reference: str | Path, hypothesis: str | Path, options: Options = Options()) -> Scored:
    """Score one file or folder of transcripts against another. Raises TextError."""
    return next(iter(score_systems(reference, {str(hypothesis): hypothesis}, options).values()))


def score_systems(
    reference: str | Path,
    hypotheses: Mapping[str, str | Path],
    options: Options = Options(),
    in_common: bool = False,
) -> dict[str, Scored]:
    """Score several systems, by name, against one reference.

    With `in_common`, as a comparison needs it, utterances that are not in all systems' pairs are left out. Raises
    TextError.
    """
    truth = read_transcripts(reference, "reference", options.reference_format or options.format)
    systems = {
        name: pair(truth, read_transcripts(path, "hypothesis", options.format), options.mismatched)
        for name, path in hypotheses.items()
    }
    if in_common:
        ids = set.intersection(*(set(pairs.ids) for pairs in systems.values()))
        if not ids:
            raise TextError(f"{some(list(hypotheses))} have no utterance in common")
        systems = {name: pairs.only(ids) for name, pairs in systems.items()}
    named = _normalizer_of([truth, *(pairs.sides[1] for pairs in systems.values())])
    return {name: _scored(pairs, options, named) for name, pairs in systems.items()}


def _normalizer_of(sides: Sequence[Transcripts]) -> str | None:
    """Return the normalizer that reports among the files name. Raises TextError where they name different ones."""
    named = {side.normalizer: side.source for side in sides if side.normalizer not in (None, "none")}
    if len(named) > 1:
        parts = ", ".join(f"{source} {name!r}" for name, source in named.items())
        raise TextError(f"reports name different normalizers ({parts}); choose one for all with --normalizer")
    return next(iter(named), None)


def _scored(pairs: Pairs, options: Options, named: str | None) -> Scored:
    fields: dict[str, Sequence] = dict(pairs.fields)
    if options.speakers:
        fields["speaker"] = _speakers(options.speakers, pairs.ids)
    normalizer = options.normalizer or named or "none"
    sides = [pairs.references, pairs.hypotheses]
    if options.normalizer is None and named:
        # A report's texts have passed the normalizer, and pass it once more below. So do those of other files, for
        # rules that change what they wrote: English ones make 0351 of "zero three five one", and 351 of that.
        sides = [
            side if file.normalizer else [_normalize(text, named) for text in side]
            for side, file in zip(sides, pairs.sides, strict=True)
        ]
    report = score(
        *sides,
        ids=pairs.ids,
        fields=fields,
        normalizer=normalizer,
        rules=options.rules,
        alternatives=pairs.alternatives,
        aligner=options.aligner,
        bootstrap=options.bootstrap,
    )
    notices = (writing_notice(report), None if options.speakers else speaker_notice(report))
    calibration = calibration_if_known(report, pairs.confidences)
    return Scored(report, pairs, calibration, tuple(filter(None, notices)))


def _normalize(text: str, name: str) -> str:
    from asr.text import normalize

    return normalize(text, name)


def speaker_notice(report: ErrorReport) -> str | None:
    """Return a notice where ids seem to begin with speakers, who are not known otherwise, as LibriSpeech's do.

    >>> ids = [f"{speaker}-1-{n:04d}" for speaker in (19, 26, 27, 32, 39) for n in range(3)]
    >>> speaker_notice(score(["a"] * 15, ["a"] * 15, ids=ids, bootstrap=0))
    'the ids seem to begin with the speaker, 5 of them: --speakers id makes the intervals hold for other speakers'
    """
    if any(name is not None for name in report.fields.get("speaker", ())):
        return None
    if not all(re.fullmatch(r"[^\W_]+([-_][^\W_]+)+", name) for name in report.ids):
        return None
    speakers = len({_speaker_in(name) for name in report.ids})
    if not FEWEST_SPEAKERS <= speakers <= report.utterances / 2:
        return None
    return (
        f"the ids seem to begin with the speaker, {speakers} of them: --speakers id makes the intervals hold for other "
        "speakers"
    )


def _speaker_in(name: str) -> str:
    return re.split("[-_]", name)[0]


def _speakers(source: str, ids: Sequence[str]) -> list[str]:
    """Return each utterance's speaker from an utt2spk file, or from its id."""
    if source == SPEAKER_IN_ID:
        return list(map(_speaker_in, ids))
    speakers = read_transcripts(source, form="kaldi").texts
    missing = [name for name in ids if name not in speakers]
    if missing:
        raise TextError(
            f"{source}: no speaker for {missing[0]!r} and {len(missing) - 1} others of {len(ids)} utterances"
        )
    return [speakers[name] for name in ids]


def changes(scored: Scored) -> list[str]:
    """Return what cleaning changed: an utterance's text before and after it, of either side."""
    found = []
    for side, before, after in (
        ("reference", scored.pairs.references, scored.report.references),
        ("hypothesis", scored.pairs.hypotheses, scored.report.hypotheses),
    ):
        rows = zip(scored.pairs.ids, before, after, strict=True)
        found += [
            f"{name} {side}\n  before  {raw}\n  after   {clean}" for name, raw, clean in rows if raw != clean
        ]
    return found


def read_as(systems: Mapping[str, Scored]) -> str:
    """Return what each file was read as: `read as TRN: ref.trn, a.trn`."""
    forms: dict[str, dict[str, None]] = {}
    for scored in systems.values():
        for side in scored.pairs.sides:
            forms.setdefault(FORMS.get(side.form, side.form), {})[side.source] = None
    return "read as " + "; as ".join(f"{form}: {', '.join(sources)}" for form, sources in forms.items())
