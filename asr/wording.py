"""How messages name many things, long texts and misspelled words."""

from collections.abc import Iterable, Sequence


def some(names: Sequence[object], most: int = 4) -> str:
    """List the first few of many names.

    >>> some(["a", "b", "c", "d", "e", "f"])
    'a, b, c, d and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def short(text: str, most: int = 60) -> str:
    """Cut a text to at most so many characters.

    >>> short("a long sentence", 7)
    'a long…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'X'?)" for the known name that is most like a misspelled one; "" if none is.

    >>> nearest("trian", ["train", "check"])
    " (did you mean 'train'?)"
    """
    import difflib  # most names are spelled well

    found = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {found[0]!r}?)" if found else ""
