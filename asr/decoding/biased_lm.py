"""Language models for flashlight that favor hotwords: another one with a bonus on its scores.

This module needs flashlight-text, whose class of language models its own are of.
"""

from collections.abc import Mapping
from typing import Any

from flashlight.lib.text.decoder import LM, LMState

from asr.decoding.hotwords import BiasNode, BiasTree


class BiasedWords(LM):
    """Over words: the bonus comes with the word.

    Arguments: lm, the language model within; bonuses by the number of the word, which are divided by the weight that
    the scores will meet.
    """

    def __init__(self, lm: Any, bonuses: Mapping[int, float]):
        super().__init__()
        self.lm, self.bonuses = lm, bonuses

    def start(self, start_with_nothing: bool):
        """Return the state before the first word."""
        return self.lm.start(start_with_nothing)

    def score(self, state, word: int):
        """Return the state behind a word, and the word's score."""
        state, score = self.lm.score(state, word)
        return state, score + self.bonuses.get(word, 0.0)

    def finish(self, state):
        """Return the state behind the utterance, and the score of its end."""
        return self.lm.finish(state)


class BiasedTokens(LM):
    """Over tokens: each state holds that of the language model within, and the place in the tree of hotwords.

    Arguments: lm, the language model within; tree of the hotwords; weight that the scores will meet, by which the
    bonuses are divided.
    """

    def __init__(self, lm: Any, tree: BiasTree, weight: float):
        super().__init__()
        self.lm, self.tree, self.weight = lm, tree, weight
        self.places: dict[Any, tuple[Any, BiasNode | None]] = {}

    def start(self, start_with_nothing: bool):
        """Return the state before the first token."""
        state = LMState()
        self.places = {state: (self.lm.start(start_with_nothing), self.tree.start)}
        return state

    def score(self, state, token: int):
        """Return the state behind a token, and the token's score."""
        within, node = self.places[state]
        within, score = self.lm.score(within, token)
        node, change = self.tree.step(node, token)
        following = state.child(token)
        self.places[following] = within, node
        return following, score + change / self.weight

    def finish(self, state):
        """Return the state behind the utterance, and the score of its end."""
        within, node = self.places[state]
        within, score = self.lm.finish(within)
        following = state.child(-1)
        self.places[following] = within, None
        return following, score + self.tree.end(node) / self.weight
