"""Write a model as other programs load it, and prove that it recognizes the same there.

  asr export runs/an4/bundle -o exported --check data/an4/cuts_dev.jsonl.gz
  asr export runs/an4/bundle -o phone --format sherpa-onnx --int8 --check data/an4/cuts_dev.jsonl.gz

onnx: one graph from samples to log-probabilities, for any ONNX runtime. sherpa-onnx: for its Omnilingual CTC loader,
on phones and in browsers too. onnx-asr: for its nemo-conformer-ctc loader, which computes features of its own.
"""

import argparse
import tempfile

from asr.errors import BundleError

FORMATS = ("onnx", "sherpa-onnx", "onnx-asr")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="BUNDLE", help="folder of a trained model, or a name: an4")
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="folder that the files are written to"
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="onnx", help="program that loads them (default: onnx)"
    )
    parser.add_argument(
        "--int8", action="store_true", help="weights of the recurrent layers in 8 bits: a third of the size"
    )
    parser.add_argument(
        "--check",
        metavar="MANIFEST",
        help="cuts.jsonl.gz to recognize by the model and by the files, which are written only if they agree",
    )


def run(arguments: argparse.Namespace) -> int:
    """Export, after a check where one is asked for. Raises BundleError where that fails."""
    from asr.bundle import Bundle, find_bundle
    from asr.export import check_export, export

    bundle = Bundle.load(find_bundle(arguments.model))
    if arguments.check:
        with tempfile.TemporaryDirectory() as scratch:
            path = export(bundle, scratch, arguments.format, arguments.int8)
            agreement = check_export(bundle, path, arguments.format, arguments.int8, arguments.check)
        print(agreement.describe())
        if not agreement.accepted:
            reason = _refusal(arguments, bundle.features.samples)
            raise BundleError(f"nothing was written to {arguments.output}: {reason}")
    path = export(bundle, arguments.output, arguments.format, arguments.int8)
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    if note := _limits(arguments.format, bundle.features.samples):
        print(note)
    return 0


def _refusal(arguments: argparse.Namespace, samples: str) -> str:
    if arguments.int8:
        return "weights in 8 bits cost too much accuracy; export without --int8"
    return _limits(arguments.format, samples) or "the files do not recognize what the model does"


def _limits(kind: str, samples: str) -> str:
    """Return what a program does differently, for a model that was not trained for that."""
    if kind == "sherpa-onnx" and samples != "standardized":
        return (
            "sherpa-onnx brings samples to mean 0 and variance 1 first, which this model was not trained with; train "
            "with features.samples standardized for the same results to the last digit"
        )
    if kind == "onnx-asr":
        return "onnx-asr computes NeMo's features, which are nearly those that this model was trained with"
    return ""
