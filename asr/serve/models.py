"""The models that are served, by their names; each is loaded when it is first asked for."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock

from asr.bundle import find_bundle
from asr.decoding import Decoder
from asr.decoding.hotwords import DEFAULT_BONUS
from asr.errors import AsrError, BundleError
from asr.recognizer import Recognizer
from asr.rescoring import make_decoder
from asr.serve.batching import Batcher
from asr.serve.metrics import Metrics
from asr.serve.request_error import RequestError
from asr.wording import nearest, some

# As OpenAI, which reads the last 224 tokens of a prompt.
MOST_HOTWORDS = 224
# Decoders of prompts that are kept for the next request with the same one.
KEPT_DECODERS = 16


class Model:
    """A model that is loaded.

    Attributes:
        name: that requests call it by.
        recognizer: with the decoder of the service's options.
        batcher: what computes its requests.
    """

    def __init__(self, name: str, recognizer: Recognizer, batcher: Batcher, options: Mapping):
        self.name, self.recognizer, self.batcher = name, recognizer, batcher
        self._options = dict(options)
        self._decoders: OrderedDict[tuple[str, ...], Decoder] = OrderedDict()
        self._deciding = Lock()

    def decoder(self, prompt: str) -> Decoder:
        """Return the decoder that prefers the words of a prompt. Raises AsrError where there can be none."""
        words = tuple(dict.fromkeys(re.findall(r"[^\s,;:.!?\"()]+", prompt)[-MOST_HOTWORDS:]))
        if not words:
            return self.recognizer.decoder
        with self._deciding:
            if words not in self._decoders:
                bundle = self.recognizer.bundle
                options = self._options | {"hotwords": dict.fromkeys(words, DEFAULT_BONUS), "processes": 1}
                self._decoders[words] = make_decoder(bundle, **options)
                while len(self._decoders) > KEPT_DECODERS:
                    self._decoders.popitem(last=False)
            self._decoders.move_to_end(words)
            return self._decoders[words]


class Models:
    """The models of a service.

    Arguments: folders, of bundles by name, the first of which answers where no model is named; load, what makes a
    recognizer of a folder; options, of decoding; wait, for batches; metrics.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        load: Callable[[Path], Recognizer],
        options: Mapping,
        wait: float,
        metrics: Metrics,
    ):
        self.folders, self.default = dict(folders), next(iter(folders))
        self._load, self._options, self._wait, self._metrics = load, options, wait, metrics
        self._loaded: dict[str, Model] = {}
        self._loading = asyncio.Lock()

    @property
    def loaded(self) -> list[Model]:
        """Return the models that are loaded."""
        return list(self._loaded.values())

    async def get(self, name: str = "") -> Model:
        """Return a model, loaded; the default without a name. Raises RequestError for one that is not served."""
        name = name or self.default
        if name not in self.folders:
            known = list(self.folders)
            raise RequestError(
                404,
                f"there is no model {name[:60]!r}{nearest(name[:60], known)}; there are {some(known, 20)}",
                "model",
            )
        if name not in self._loaded:  # those that are loaded need not wait for others
            async with self._loading:
                if name not in self._loaded:
                    self._loaded[name] = await asyncio.to_thread(self._open, name)
        return self._loaded[name]

    def _open(self, name: str) -> Model:
        try:
            recognizer = self._load(self.folders[name])
        except AsrError as error:
            raise RequestError(503, f"the model {name} cannot be loaded: {error}", "model") from error
        return Model(name, recognizer, Batcher(recognizer, self._wait, self._metrics), self._options)

    def close(self) -> None:
        """End what computes; what was asked for is computed before."""
        for model in self.loaded:
            model.batcher.close()
        self._loaded.clear()


def folders_of(names: list[str]) -> dict[str, Path]:
    """Return the folders of models by name: of NAME=FOLDER, FOLDER, a name of `asr models`, or OWNER/NAME of the hub.

    A folder called bundle, as training writes it, has the name of the run that holds it. Raises BundleError.

    >>> list(folders_of(["an4", "whisper-1=an4"]))
    ['an4', 'whisper-1']
    """
    folders: dict[str, Path] = {}
    for item in names:
        name, _, place = item.rpartition("=") if not Path(item).exists() else ("", "", item)
        folder = find_bundle(place)
        if (
            not name and not Path(place).exists() and "/" in place
        ):  # of the hub: OWNER/NAME, @REVISION behind it
            name = place.partition("@")[0].rpartition("/")[2]
        elif not name:
            resolved = folder.resolve()
            name = resolved.parent.name if resolved.name == "bundle" else resolved.name
        if name in folders:
            raise BundleError(f"two models are called {name}; tell them apart as NAME=FOLDER")
        folders[name] = folder
    return folders
