"""Held-out speakers: train and dev without a speaker in both."""

import random
from collections.abc import Mapping, Sequence

from asr.data.cuts import Cut, speaker_of
from asr.errors import ManifestError
from asr.wording import some


def hold_out(
    cuts: Sequence[Cut], *, speakers: Sequence[str] | None = None, fraction: float = 0.1, seed: int = 0
) -> tuple[list[Cut], list[Cut], str]:
    """Part cuts in two without a speaker on both sides: those to train on and those held out for development.

    Arguments: speakers names those to hold out; else a `fraction` of the speakers is drawn, the same for the
        same `seed`, leaving out of the draw anyone who alone would make more than twice that fraction of the
        audio. Utterances are drawn instead where speakers are unknown or too few. Returns (train, dev, a
        sentence that says what was done). Raises ManifestError for a speaker who is not there or when nothing
        is left to train on.
    """
    seconds: dict[str, float] = {}
    genders: dict[str, str | None] = {}
    for cut in cuts:
        if (speaker := speaker_of(cut)) is not None:
            seconds[speaker] = seconds.get(speaker, 0.0) + cut.duration
            genders[speaker] = cut.supervisions[0].gender
    if speakers is not None:
        unknown = sorted(set(speakers) - seconds.keys())
        if unknown:
            known = f"the corpus has {some(sorted(seconds), 10)}" if seconds else "the speakers are unknown"
            raise ManifestError(f"no speaker {', '.join(unknown)} to hold out; {known}")
        held_out = set(speakers)
    else:
        held_out = _draw_speakers(seconds, genders, fraction, seed) if seconds else set()
    if held_out:
        is_dev = {cut.id for cut in cuts if speaker_of(cut) in held_out}
        names = ", ".join(sorted(held_out))
        done = f"held out for dev: {len(held_out)} of {len(seconds)} speakers ({names})"
        if unnamed := sum(speaker_of(cut) is None for cut in cuts):
            done += f"; {unnamed} utterances without a speaker stay in train"
    else:
        ids = sorted(cut.id for cut in cuts)
        is_dev = set(random.Random(seed).sample(ids, max(1, round(fraction * len(ids)))))
        why = f"too few speakers ({len(seconds)})" if seconds else "the speakers are unknown"
        done = f"held out for dev: {len(is_dev)} of {len(ids)} utterances, for {why}"
    train = [cut for cut in cuts if cut.id not in is_dev]
    dev = [cut for cut in cuts if cut.id in is_dev]
    if not train or not dev:
        raise ManifestError(
            f"cannot hold out development utterances: {len(dev)} of {len(cuts)} would be held out and {len(train)} "
            "left to train on; give more data, other speakers or another fraction (0 holds out nothing)"
        )
    return train, dev, done


def _draw_speakers(
    seconds: Mapping[str, float], genders: Mapping[str, str | None], fraction: float, seed: int
) -> set[str]:
    chance = random.Random(seed)
    # Shuffle each gender, then interleave them, so that those drawn are mixed as all are.
    places = {}
    for gender in sorted(set(genders.values()), key=str):
        members = sorted(speaker for speaker in seconds if genders[speaker] == gender)
        chance.shuffle(members)
        places |= {speaker: (index + 0.5) / len(members) for index, speaker in enumerate(members)}
    order = sorted(places, key=lambda speaker: (places[speaker], speaker))
    wanted = max(1, round(fraction * len(order)))
    room = 2 * fraction * sum(seconds.values())
    drawn: set[str] = set()
    for speaker in order:
        if len(drawn) < wanted and seconds[speaker] <= room:
            drawn.add(speaker)
            room -= seconds[speaker]
    return drawn
