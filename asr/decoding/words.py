"""From tokens to words with their times and confidences."""

import math

import numpy as np

from asr.decoding.alignment import word_edges
from asr.decoding.greedy import Hypothesis
from asr.text import Tokenizer
from asr.transcript import Character, Word

NO_SOUND = np.zeros(0, bool)


def words_of(
    hypothesis: Hypothesis,
    tokenizer: Tokenizer,
    seconds_per_frame: float,
    loud: np.ndarray = NO_SOUND,
    duration: float = math.inf,
    character_times: bool = False,
) -> tuple[Word, ...]:
    """Return a hypothesis's words, from where their sound starts to where it ends.

    Arguments: loud (hop,) bool, as `loud_hops` gives it, without which a word has the frames of its tokens; duration of
    the audio in seconds, which no word exceeds; character_times, whether the words have their letters. The border
    between two tokens is looked for as that between two words, so that a word's first letter starts as the word does.

    >>> from asr.text import CharacterTokenizer
    >>> hypothesis = Hypothesis([3, 2], [(10, 11), (12, 12)], [0.9, 0.8], -1.0)
    >>> words_of(hypothesis, CharacterTokenizer(" ab"), 0.04)
    (Word(word='ba', start=0.4, end=0.52, confidence=0.8, characters=(), channel=0),)
    """
    spans = tokenizer.word_spans(hypothesis.tokens)
    parts = [part for span in spans for part in ([[i] for i in span] if character_times else [span])]
    cores = [
        (
            hypothesis.frames[part[0]][0] * seconds_per_frame,
            (hypothesis.frames[part[-1]][1] + 1) * seconds_per_frame,
        )
        for part in parts
    ]
    edges = iter([(round(start, 3), round(min(end, duration), 3)) for start, end in word_edges(loud, cores)])
    words = []
    for span in spans:
        text = tokenizer.decode([hypothesis.tokens[i] for i in span])
        confidence = min(hypothesis.confidences[i] for i in span)
        if not character_times:
            words.append(Word(text, *next(edges), confidence))
            continue
        timed = [(tokenizer.decode([hypothesis.tokens[i]]).strip(), *next(edges)) for i in span]
        characters = tuple(character for token in timed for character in share_out(*token))
        words.append(Word(text, timed[0][1], timed[-1][2], confidence, characters))
    return tuple(words)


def share_out(text: str, start: float, end: float) -> tuple[Character, ...]:
    """Return the letters of a token with equal parts of its time, for a model tells no more of them.

    >>> [(letter.character, letter.start) for letter in share_out("to", 1.0, 1.2)]
    [('t', 1.0), ('o', 1.1)]
    """
    edges = [round(start + i * (end - start) / len(text), 3) for i in range(len(text) + 1)]
    return tuple(Character(letter, *edges[i : i + 2]) for i, letter in enumerate(text))
