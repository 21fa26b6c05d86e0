"""lhotse's recipes: corpora that lhotse reads, as splits of cuts."""

import inspect
import logging
import tempfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

from asr.data.corpora.published import CorpusFolder
from asr.data.cuts import Cut, plain
from asr.errors import ManifestError

KINDS = {"train": "train", "dev": "dev", "val": "dev", "test": "test", "eval": "test"}


def known() -> list[str]:
    """Name lhotse's recipes that read one folder; a few need several, and are for Python."""
    import lhotse.recipes

    names = [name for name in dir(lhotse.recipes) if name.startswith("prepare_")]
    return [
        name.removeprefix("prepare_") for name in names if _reads_one_folder(getattr(lhotse.recipes, name))
    ]


def _reads_one_folder(function: Callable) -> bool:
    parameters = inspect.signature(function).parameters.values()
    needed = [item.name for item in parameters if item.default is item.empty and item.name != "output_dir"]
    return len(needed) == 1


def read(
    name: str,
    source: CorpusFolder,
    parts: Sequence[str] = (),
    **options: Any,
) -> dict[str, list[Cut]]:
    """Read a corpus through `lhotse.recipes.prepare_NAME(folder, **options)`: {split: cuts}.

    A part called train-..., dev-... or test-... becomes a split of its own, and all parts that begin alike
    are joined into the split train, dev or test as well. What lhotse warns of becomes a problem.

    Arguments: parts, those to read where not all are wanted; options of the recipe.
    """
    import lhotse.recipes
    from lhotse import CutSet

    function = getattr(lhotse.recipes, f"prepare_{name}", None)
    if function is None:
        raise ManifestError(f"lhotse has no recipe {name!r}")
    accepted = inspect.signature(function).parameters
    if parts and "dataset_parts" in accepted:
        options["dataset_parts"] = list(parts)
    if "num_jobs" in accepted:
        options["num_jobs"] = source.jobs
    splits: dict[str, list[Cut]] = {}
    # Some recipes must write their own manifests: what we write are cuts.
    with tempfile.TemporaryDirectory() as aside, _warnings_of_lhotse(source.problems):
        if "output_dir" in accepted and accepted["output_dir"].default is inspect.Parameter.empty:
            options["output_dir"] = aside
        try:
            found = function(source.folder, **options)
            if "recordings" in found:  # a corpus of a single part
                found = {"train": found}
            for part, manifests in sorted(found.items()):
                cuts = _one_cut_each(CutSet.from_manifests(**manifests))
                for split in {part, kind_of(part)}:
                    splits.setdefault(split, []).extend(cuts)
        except Exception as error:  # whatever a recipe meets, assertions too, it met in the user's folder
            reason = str(error) or type(error).__name__
            raise ManifestError(
                f"{source.folder} cannot be read as the layout of lhotse's prepare_{name}: {reason}"
            ) from error
    return splits


def kind_of(part: str) -> str:
    """Recognize train, dev and test by how a part's name begins; any other name stands for itself."""
    return next((kind for prefix, kind in KINDS.items() if part.lower().startswith(prefix)), part)


def _one_cut_each(cuts: Any) -> list[Cut]:
    """Make a cut of each supervision, with its id; sorted by that."""
    trimmed = cuts.trim_to_supervisions(keep_overlapping=False, num_jobs=1)
    named = (cut.with_id(cut.supervisions[0].id) for cut in trimmed.data)
    return sorted(map(plain, named), key=lambda cut: cut.id)


@contextmanager
def _warnings_of_lhotse(problems: list[str]):
    """Collect what lhotse's recipes log, such as missing files, which they otherwise pass over."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            problems.append(record.getMessage())

    handler = Collector(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
