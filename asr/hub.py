"""Models of the Hugging Face hub: found by OWNER/NAME, downloaded once, kept in the hub's own cache, uploaded whole.

Only the named files of a bundle travel: safetensors, JSON, the tokenizer and the model card. Nothing is executed or
unpickled. $HF_ENDPOINT names another server, $HF_HUB_CACHE the cache, $HF_HUB_OFFLINE=1 keeps to what it holds.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from asr.errors import BundleError
from asr.version import DISTRIBUTION, __version__, install_hint

CARD_FILE = "README.md"
_NAME = re.compile(r"(?P<repository>(?P<owner>[\w.-]+)/[\w.-]+)(@(?P<revision>[^@\s]+))?", re.ASCII)


def is_hub_name(name: str) -> bool:
    """Return whether a name is OWNER/NAME or OWNER/NAME@REVISION and no path: no file or folder begins so here.

    >>> is_hub_name("jane/digits"), is_hub_name("jane/digits@v1"), is_hub_name("runs/digits/bundle")
    (True, True, False)
    """
    match = _NAME.fullmatch(name)
    return bool(match) and not match["owner"].startswith(".") and not Path(match["owner"]).exists()


def download(name: str, files: Sequence[str], damaged: Callable[[Path], str | None]) -> Path:
    """Return the folder of a hub's model; it is downloaded where the cache does not hold its revision.

    Arguments: name, OWNER/NAME or OWNER/NAME@REVISION, a branch, tag or commit; files, those that are wanted; damaged,
    which returns why a folder's files are not as they were uploaded, None if they are. Damaged files are downloaded a
    second time. Raises BundleError for what is not there, not reachable or damaged again.
    """
    hub = _hub(name)
    match = _NAME.fullmatch(name)
    assert match is not None, name
    for again in (False, True):
        with _reported(name):
            folder = Path(
                hub.snapshot_download(
                    match["repository"],
                    revision=match["revision"],
                    allow_patterns=[*files, CARD_FILE],
                    force_download=again,
                    library_name=DISTRIBUTION,
                    library_version=__version__,
                )
            )
        if not (problem := damaged(folder)):
            return folder
    raise BundleError(
        f"the download of {name} from {hub.constants.ENDPOINT} is damaged, twice: {problem}; try again later, or ask "
        f"{match['owner']} to upload the model again"
    )


def upload(
    folder: Path, files: Sequence[str], name: str, card: str, message: str, *, private: bool = False
) -> str:
    """Upload a folder's files and a model card in one commit; return the commit's address.

    Arguments: name, OWNER/NAME or OWNER/NAME@BRANCH; the repository is made where there is none, `private` or not.
    Raises BundleError where the hub refuses.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise BundleError(f"{name!r} is no name of the hub; expected OWNER/NAME or OWNER/NAME@BRANCH")
    hub = _hub(name)
    api = hub.HfApi(library_name=DISTRIBUTION, library_version=__version__)
    repository, branch = match["repository"], match["revision"]
    operations = [hub.CommitOperationAdd(file, folder / file) for file in files if (folder / file).is_file()]
    operations.append(hub.CommitOperationAdd(CARD_FILE, card.encode()))
    with _reported(name):
        api.create_repo(repository, private=private, exist_ok=True)
        if branch:
            api.create_branch(repository, branch=branch, exist_ok=True)
        return str(
            api.create_commit(repository, operations, commit_message=message, revision=branch).commit_url
        )


def search(words: str = "") -> list[tuple[str, int]]:
    """Return the hub's models of asr whose names hold the words, and their downloads, most downloaded first."""
    hub = _hub("searching")
    with _reported("searching"):
        found = hub.HfApi().list_models(filter=DISTRIBUTION, search=words or None, sort="downloads")
        return [(model.id, model.downloads or 0) for model in found]


def cache() -> Path | None:
    """Return the folder of the hub's cache; None without the hub's package."""
    if not find_spec("huggingface_hub"):
        return None
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).resolve()


def downloaded(is_wanted: Callable[[Path], bool]) -> list[str]:
    """Return the names, OWNER/NAME, of the cached models that have a wanted folder; none without the hub's package."""
    folder = cache()
    if folder is None or not folder.is_dir():
        return []
    from huggingface_hub import scan_cache_dir

    return sorted(
        repository.repo_id
        for repository in scan_cache_dir(folder).repos
        if any(is_wanted(revision.snapshot_path) for revision in repository.revisions)
    )


def _hub(name: str) -> ModuleType:
    if not find_spec("huggingface_hub"):
        raise BundleError(
            f"{name}: there is no such folder, and models of the Hugging Face hub need the package huggingface_hub; "
            f"{install_hint('hub')}"
        )
    import huggingface_hub
    import huggingface_hub.constants

    return huggingface_hub


@contextmanager
def _reported(name: str) -> Iterator[None]:
    """Raise what the hub's client raises as one BundleError."""
    from huggingface_hub import constants, errors
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]

    place = constants.ENDPOINT
    try:
        yield
    except errors.RevisionNotFoundError:
        raise BundleError(
            f"{name}: {place} has the model, but not this revision; see its files there"
        ) from None
    except errors.RepositoryNotFoundError:
        raise BundleError(
            f"{place} has no model {name.partition('@')[0]}, or it is private; expected the folder of a model, or "
            "OWNER/NAME as the hub spells it; `hf auth login` gives access to private ones"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise BundleError(
            f"{name} is not in the cache {constants.HF_HUB_CACHE}, and {place} "
            f"{'is not asked: HF_HUB_OFFLINE is set' if constants.HF_HUB_OFFLINE else 'cannot be reached'}; connect "
            "to the network, or name a folder"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no status"
        reason = " ".join((error.server_message or "").split())
        raise BundleError(
            f"{name}: {place} answers {status}{f' ({reason})' if reason else ''}; "
            + ("log in with `hf auth login`" if status in (401, 403) else "try again later")
        ) from error
    except (HTTPError, OSError, RuntimeError) as error:  # RuntimeError: of a file whose upload broke off
        raise BundleError(
            f"{name}: {place} cannot be reached or failed: {error.__cause__ or error}; try again later"
        ) from error
