"""Errors a user meets: each message says what was found, what was expected and what to do next."""


class AsrError(Exception):
    """Base of every error caused by input rather than by a defect of the program.

    The command line prints the message without a traceback (`--debug` shows it) and exits with status 1.
    """


class AudioError(AsrError):
    """Audio that cannot be read: missing, empty, truncated, not audio, or carrying NaN."""


class TextError(AsrError):
    """A transcript, alphabet, normaliser or tokenizer that does not fit."""


class ManifestError(AsrError):
    """A manifest or corpus folder that is missing, malformed or names what is not there."""


class DownloadError(AsrError):
    """A corpus that cannot be downloaded or unpacked."""


class ConfigError(AsrError):
    """A configuration with an unknown key, a wrong type or values that contradict each other."""


class BundleError(AsrError):
    """A saved model that is missing, incomplete, damaged or from another version."""


class AlignmentError(AsrError):
    """Targets that CTC cannot align: too long for their frames, empty, or with non-finite scores."""


class DecodingError(AsrError):
    """A language model, lexicon or biasing list that cannot be used with the model."""


class BackendError(AsrError):
    """A recurrent backend that cannot do what was asked, named with the reason."""
