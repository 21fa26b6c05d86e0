"""Errors a user meets: each message says what was found, what was expected and what to do next."""

from math import inf
from typing import Any


class AsrError(Exception):
    """Base of every error caused by input rather than by a defect of the program.

    The command line prints the message without a traceback (`--debug` shows it) and exits with status 1.

    >>> import asr
    >>> try:
    ...     asr.load("an5")
    ... except asr.AsrError as error:
    ...     print(str(error).partition(";")[0])
    there is no bundle an5 (did you mean 'an4'?)
    """


class AudioError(AsrError):
    """Audio that cannot be read: missing, empty, truncated, not audio, or carrying NaN."""


class TextError(AsrError):
    """A transcript, alphabet, normalizer or tokenizer that does not fit."""


class ManifestError(AsrError):
    """A manifest or corpus folder that is missing, malformed or names what is not there."""


class DownloadError(AsrError):
    """A corpus that cannot be downloaded or unpacked."""


class ConfigError(AsrError):
    """A configuration with an unknown key, a wrong type or values that contradict each other."""


def check_bounds(
    section: str,
    config: Any,
    *names: str,
    least: float = -inf,
    above: float = -inf,
    below: float = inf,
    most: float = inf,
) -> None:
    """Raise ConfigError for a field of a configuration whose number, or one of whose numbers, is out of bounds.

    Arguments: section, the configuration's name; names of its fields; the bounds, of which `above` and `below` are out.
    """
    limits = (
        (least, "{:g} or more"),
        (above, "more than {:g}"),
        (most, "{:g} at most"),
        (below, "less than {:g}"),
    )
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, list | tuple) else [value]:
            if not (isinstance(number, str) or (least <= number <= most and above < number < below)):
                expected = " and ".join(text.format(limit) for limit, text in limits if abs(limit) != inf)
                raise ConfigError(f"{section}.{name} is {value}; expected {expected}")


class BundleError(AsrError):
    """A saved model that is missing, incomplete, damaged or from another version."""


class AlignmentError(AsrError):
    """Targets that CTC cannot align: too long for their frames, empty, or with non-finite scores."""


class DecodingError(AsrError):
    """A language model, lexicon or biasing list that cannot be used with the model."""


class BackendError(AsrError):
    """A recurrent backend that cannot do what was asked, named with the reason."""
