"""Show versions, what computes on this machine, and what a saved model holds.

asr info                            for a report of a fault
asr info an4                        the same, and the model that comes with asr
asr info runs/an4/bundle --json -   as JSON
"""

import argparse
import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from asr.cli.console import check_writable, write
from asr.errors import AsrError

# What each part of asr needs, the extras by their names.
PACKAGES = {
    "transcribing": "numpy safetensors sentencepiece soundfile soxr torch onnxruntime",
    "scoring": "jiwer rapidfuzz whisper-normalizer",
    "decode": "flashlight-text",
    "train": "lhotse lightning torchaudio jsonargparse tensorboard",
    "microphone": "sounddevice",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "model", nargs="?", metavar="BUNDLE", help="saved model: a folder, or a name of `asr models`"
    )
    parser.add_argument("--json", metavar="FILE", help="file for the same as JSON (- prints it instead)")


def run(arguments: argparse.Namespace) -> int:
    """Print the report."""
    check_writable(arguments.json)
    report: dict[str, Any] = {"versions": versions(), "computing": computing()}
    if arguments.model is not None:
        report["model"] = model(arguments.model)
    if arguments.json:
        write(arguments.json, json.dumps(report, ensure_ascii=False, indent=2, default=str) + "\n")
    if arguments.json != "-":
        print("\n\n".join(_section(title, facts) for title, facts in report.items()))
    return 0


def versions() -> dict[str, Any]:
    """Return the versions of asr, Python and the packages; "not installed" for those that are missing."""
    from asr.version import __version__

    facts: dict[str, Any] = {"asr": __version__, "python": platform.python_version()}
    for part, names in PACKAGES.items():
        facts[part] = ", ".join(f"{name} {_version(name)}" for name in names.split())
    return facts


def computing() -> dict[str, Any]:
    """Return what computes here: system, processor, engine, recurrent kernels, compiler and GPU."""
    from asr.engines import ENGINES, chosen_engine
    from asr.memory import free_memory

    installed = [name for name, (package, *_) in ENGINES.items() if find_spec(package)]
    facts = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": f"{_processor()}, {_cores()} cores for this process",
        "free memory": f"{free_memory() / 1e9:.1f} GB",
        "engine": f"{chosen_engine('auto', 'float32')} by default, installed: {', '.join(installed) or 'none'}",
    }
    return facts | (_torch_facts() if "torch" in installed else {})


def model(name: str) -> dict[str, Any]:
    """Return what a saved model holds. Raises BundleError."""
    import math

    from asr.bundle import LEXICON_FILE, LM_FILE, Bundle, find_bundle

    folder = find_bundle(name)
    bundle = Bundle.load(folder)
    config, features, tokenizer = bundle.model, bundle.features, bundle.tokenizer
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    lm_size = sizes.pop(LM_FILE, 0)
    sizes.pop(LEXICON_FILE, 0)
    size = sum(sizes.values())
    parameters = sum(
        math.prod(weights.shape) for key, weights in bundle.weights.items() if key.startswith("model.")
    )
    phones = f" and {len(config.phones)} phones" if config.phones else ""
    directions = "two directions" if config.bidirectional else "one direction"
    return {
        "folder": str(folder),
        "size": f"{parameters / 1e6:.2f} million parameters, {size / 1e6:.1f} MB, stored as {bundle.stored_as}",
        "input": f"{features.sample_rate} Hz, {features.n_mels} mel bands, normalized: {features.normalize}",
        "output": f"a frame of {1000 * bundle.seconds_per_frame:g} ms, {tokenizer.vocab_size} tokens{phones}",
        "recurrent layers": f"{config.layers} of {config.hidden_size} {config.cell}, {directions}",
        "text": f"{type(tokenizer).__name__}, normalizer {bundle.normalizer}",
        "language model": f"{LM_FILE}, {lm_size / 1e6:.1f} MB" if lm_size else "none of its own",
        "lexicon": _lexicon(bundle.lexicon) if bundle.lexicon else "none of its own",
        "decoding": _pairs(bundle.decoding) or "greedy; `asr lm tune` has stored nothing",
        "training": _pairs(bundle.training),
    }


def _lexicon(path: Path) -> str:
    from asr.text.lexicon import Lexicon

    lexicon = Lexicon.read(path)
    count = sum(map(len, lexicon.words.values()))
    return f"{path.name}, {count} pronunciations, {len(lexicon.phones)} phones"


def _torch_facts() -> dict[str, Any]:
    import torch

    from asr.recurrent.cpu import build, library

    problem = library.problem()
    kernels = f"not available: {problem}" if problem else f"fused, {library.instruction_set().decode()}"
    try:
        compiler = build.find_compiler()
    except AsrError as error:
        compiler = f"none ({error})"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "kernels on the CPU": kernels,
        "compiler": compiler,
        "GPU": ", ".join(gpus) or "none",
        "kernels on the GPU": "fused, by Triton" if gpus and find_spec("triton") else "none",
        "threads of torch": torch.get_num_threads(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> int:
    import os

    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _pairs(values: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _section(title: str, facts: dict[str, Any]) -> str:
    width = max(map(len, facts))
    return "\n".join([title, *(f"  {name:{width}}  {value}" for name, value in facts.items())])
