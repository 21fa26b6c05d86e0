"""The version, and the name under which the package is installed."""

__version__ = "0.2.0"
DISTRIBUTION = "recurrent-asr"  # on PyPI `asr` is a package of another field


def install_hint(extra: str) -> str:
    """Return the command that installs an optional part.

    >>> install_hint("decode")
    "pip install 'recurrent-asr[decode]'"
    """
    return f"pip install '{DISTRIBUTION}[{extra}]'"
