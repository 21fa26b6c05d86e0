"""A model's card: what it was trained on, how well it recognizes, its license and limits, as the hub reads them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asr.bundle import Bundle
from asr.errors import BundleError
from asr.text import CharacterTokenizer
from asr.version import DISTRIBUTION

WRITES = {
    "basic": "It writes lower-case words and digits as the training text did, without punctuation.",
    "english": "It writes English as whisper's normalizer does, without punctuation.",
    "none": "It writes as the training text did.",
}
FEW_HOURS = 100  # of training data, below which a model is one of its speakers, rooms and topics


def model_card(
    bundle: Bundle,
    name: str,
    evaluations: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    license_id: str = "",
    data: str = "",
    limits: str = "",
) -> str:
    """Return the card of a bundle as Markdown, its metadata in front.

    Arguments: name, OWNER/NAME; evaluations, what `asr evaluate --json` wrote, by the name of the test set; license_id,
    the hub's identifier, such as apache-2.0; data and limits, sentences that the bundle cannot know.
    """
    sections = {
        "": _summary(bundle),
        "Use": _usage(name),
        "Data": _data(bundle, data),
        "Word error rate": _error_rates(bundle, name, evaluations or {}),
        "License": f"{license_id}." if license_id else "Not stated: ask the owner before you use it.",
        "Limits": _limits(bundle, limits),
    }
    title = name.rpartition("/")[2]
    parts = [
        f"## {heading}\n\n{text}" if heading else f"# {title}\n\n{text}" for heading, text in sections.items()
    ]
    return _metadata(name, evaluations or {}, license_id) + "\n" + "\n\n".join(parts) + "\n"


def read_evaluations(paths: Sequence[str | Path]) -> dict[str, dict[str, Any]]:
    """Return what `asr evaluate --json` wrote, by the name of the test set. Raises BundleError for other files."""
    evaluations: dict[str, dict[str, Any]] = {}
    for path in map(Path, paths):
        try:
            values = json.loads(path.read_text("utf-8"))
            sets = values.get("sets") or {path.stem: values}
            for label, result in sets.items():
                evaluations[label] = {
                    key: result[key] for key in ("wer", "wer_interval", "words", "utterances")
                }
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise BundleError(
                f"{path} is no evaluation ({error or type(error).__name__}); expected what `asr evaluate MANIFEST "
                "--model BUNDLE --json FILE` writes"
            ) from error
    return evaluations


def _metadata(name: str, evaluations: Mapping[str, Mapping[str, Any]], license_id: str) -> str:
    """Return the YAML in front of a card; JSON's texts are YAML's."""
    lines = [f"library_name: {DISTRIBUTION}", "pipeline_tag: automatic-speech-recognition"]
    lines += [f"license: {license_id}"] if license_id else []
    lines += [f"tags: [{DISTRIBUTION}, ctc, lstm, safetensors]"]
    if evaluations:
        lines += ["model-index:", f"- name: {json.dumps(name)}", "  results:"]
    for label, values in evaluations.items():
        lines += [
            "  - task: {type: automatic-speech-recognition}",
            f"    dataset: {{name: {json.dumps(label)}, type: {json.dumps(label)}}}",
            f"    metrics: [{{type: wer, value: {100 * values['wer']:.2f}}}]",
        ]
    return "\n".join(["---", *lines, "---", ""])


def _summary(bundle: Bundle) -> str:
    model = bundle.model
    parameters = sum(
        math.prod(value.shape) for key, value in bundle.weights.items() if key.startswith("model.")
    )
    directions = "both directions" if model.bidirectional else "one direction"
    return (
        f"A speech recognizer of convolutions, {model.layers} recurrent layers of {model.hidden_size} {model.cell} "
        f"cells in {directions} and CTC: {parameters / 1e6:.1f} million parameters. It takes {bundle.sample_rate} Hz "
        f"and gives one of {bundle.tokenizer.vocab_size} tokens every {1000 * bundle.seconds_per_frame:g} ms."
    )


def _usage(name: str) -> str:
    return (
        f"```\npip install '{DISTRIBUTION}[hub]'\nasr transcribe speech.wav --model {name}\n```\n\n"
        f'```python\nimport asr\n\nprint(asr.load("{name}").transcribe("speech.wav").text)\n```'
    )


def _data(bundle: Bundle, data: str) -> str:
    known = bundle.training
    lines = [data] if data else []
    if "train_hours" in known:
        of = f" ({known['train_utterances']} utterances)" if "train_utterances" in known else ""
        lines.append(
            f"{known['train_hours']:.2f} hours{of} of `{known.get('train_manifests', 'unnamed manifests')}`."
        )
    return " ".join(lines) or "Not stated."


def _error_rates(bundle: Bundle, name: str, evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    if not evaluations:
        known = bundle.training.get("dev_wer")
        return (
            "Not measured."
            if known is None
            else (
                f"{100 * known:.2f} % on the development set by which training chose its epoch, which flatters; no "
                "test set was measured."
            )
        )
    rows = []
    for label, values in evaluations.items():
        bounds = values["wer_interval"]
        interval = f"{100 * bounds[0]:.2f} to {100 * bounds[1]:.2f}" if bounds else "-"
        rows.append(
            f"| {label} | {100 * values['wer']:.2f} | {interval} | {values['words']} | {values['utterances']} |"
        )
    table = "\n".join(
        ["| set | WER % | 95 % interval | words | utterances |", "|---|---|---|---|---|", *rows]
    )
    return f"{table}\n\n```\nasr evaluate cuts_test.jsonl.gz --model {name}\n```"


def _limits(bundle: Bundle, limits: str) -> str:
    lines = [limits] if limits else []
    lines.append(WRITES[bundle.normalizer])
    if isinstance(bundle.tokenizer, CharacterTokenizer):
        letters = "".join(token for token in bundle.tokenizer.tokens[1:] if token.strip())
        lines.append(f"It knows the letters `{letters}` only.")
    hours = bundle.training.get("train_hours")
    if hours is not None and hours < FEW_HOURS:
        lines.append(
            f"It was trained on {hours:.2f} hours: expect many more errors with other speakers, rooms, microphones and "
            "topics."
        )
    if bundle.model.bidirectional:
        lines.append("It reads in both directions, so that its words come late in a stream.")
    return "\n".join(f"- {line}" for line in lines)
