"""Measure a model's word error rate on test sets: with intervals, what the errors are, and how fast it was.

  asr evaluate data/an4/cuts_dev.jsonl.gz --model runs/an4/bundle --json result.json
  asr evaluate test-clean.jsonl.gz test-other.jsonl.gz --model BUNDLE --table markdown
  asr evaluate cuts_dev.jsonl.gz --model BUNDLE --html report.html

References and hypotheses go through the normalizer that the model was trained with, or the one named. --nbest N adds
the error rate of the best of N hypotheses. Words that training had never seen are counted apart if the training
manifests can be found.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.cli import options
from asr.cli.console import check_writable, progress_bar, report_failures, write
from asr.cli.results import add_details, details
from asr.errors import AsrError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asr import Recognizer
    from asr.data.cuts import Cut
    from asr.evaluation import Evaluation
    from asr.language_model import LanguageModel
    from asr.scoring.breakdown import Group

# The figures that only a model's own evaluation has: a table's column, and the name in full.
FIGURES = {"RTF": "real-time factor", "ECE %": "calibration error", "oracle WER %": "oracle WER"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "manifests", nargs="+", metavar="MANIFEST", help="cuts.jsonl.gz with references; each is a test set"
    )
    options.add_model(parser)
    parser.add_argument(
        "--normalizer",
        metavar="NAME",
        help="normalizer of both sides: basic, english, none (default: the model's)",
    )
    parser.add_argument(
        "--training-manifest",
        nargs="+",
        metavar="CUTS",
        help="training manifests: their words are those that the model has seen (default: those it was trained on)",
    )
    add_details(parser, confusions=5, worst=5)
    parser.add_argument(
        "--judge-lm",
        metavar="DIR",
        help="recurrent language model: how well its surprise and the confidences find wrong words is printed, and "
        "--html colors words by both",
    )
    options.add_computing(parser)
    options.add_decoding(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate; 1 if any utterance could not be read."""
    from asr.data import load_cuts
    from asr.evaluation import check_fields, familiarity, trained_on, training_words, word_surprises
    from asr.scoring.cleaning import Cleaning

    for path in (arguments.html, arguments.json):
        check_writable(path)
    if arguments.html:
        import jinja2  # noqa: F401 - where it is missing, before hours are spent

    sets = {name: load_cuts(path) for name, path in _names(arguments.manifests).items()}
    for cuts in sets.values():
        check_fields(cuts, arguments.by)
    model = options.load_recognizer(arguments)
    judge = _judge(model, arguments.judge_lm)
    normalizer = arguments.normalizer or model.bundle.normalizer
    Cleaning(normalizer)  # refuses a normalizer that is missing before hours are spent
    manifests = arguments.training_manifest or trained_on(model.bundle.training)
    vocabulary = training_words(manifests, normalizer)
    evaluations, failures = _evaluations(model, sets, normalizer, arguments)
    total = sum(map(len, sets.values()))
    if not evaluations:
        report_failures(failures, total)
        raise AsrError("no utterance could be read, so there is nothing to score")
    seen = familiarity({name: evaluation.report for name, evaluation in evaluations.items()}, vocabulary)
    surprises = word_surprises(evaluations, judge) if judge else None
    if arguments.json:
        write(arguments.json, _json(evaluations, len(sets) > 1, options.facts(arguments)))
    if arguments.html:
        write(arguments.html, _page(model, evaluations, seen, surprises, arguments))
    if arguments.json != "-":
        notes = [
            f"device: {model.engine.device}",
            *_missed(seen),
            *_found_wrong(evaluations, surprises),
        ]
        _print(evaluations, notes, arguments)
    return report_failures(failures, total)


def _evaluations(
    model: "Recognizer", sets: "Mapping[str, Sequence[Cut]]", normalizer: str, arguments: argparse.Namespace
) -> "tuple[dict[str, Evaluation], list[str]]":
    """Evaluate each set of which anything can be read; return why utterances could not be, too."""
    from asr.evaluation import evaluate

    evaluations, failures = {}, []
    for name, cuts in sets.items():
        with progress_bar(len(cuts), f"evaluating {name}", "utterances", quiet=arguments.quiet) as bar:
            evaluation = evaluate(
                model,
                cuts,
                normalizer=normalizer,
                batch_seconds=arguments.batch_seconds,
                progress=lambda bar=bar: bar.update(1),
            )
        failures += evaluation.failures
        if evaluation.report.utterances:
            evaluations[name] = evaluation
    return evaluations, failures


def _json(evaluations: "dict[str, Evaluation]", several: bool, facts: dict[str, str]) -> str:
    values = {name: _values(evaluation) for name, evaluation in evaluations.items()}
    result = {"sets": values} if several else next(iter(values.values()))
    return json.dumps(facts | result, indent=2, ensure_ascii=False) + "\n"


def _page(
    model: "Recognizer",
    evaluations: "dict[str, Evaluation]",
    seen: "list[Group]",
    surprises: list[list[float]] | None,
    arguments: argparse.Namespace,
) -> str:
    """Return the HTML page, which plays and pictures the worst utterances."""
    from asr.bundle import SHIPPED, find_bundle
    from asr.evaluation import reliability, sounds_and_pictures, with_distinct_ids, word_confidences
    from asr.scoring.html import render

    shown = with_distinct_ids(evaluations)
    audio, pictures = sounds_and_pictures(model, shown, Path(arguments.html))
    seams = {f"place in long audio of {name}": item.by_seam() for name, item in evaluations.items()}
    folder = find_bundle(arguments.model or SHIPPED).resolve()
    return render(
        {name: item.report for name, item in shown.items()},
        f"{_model_name(folder)} on {', '.join(evaluations)}",
        extra={name: _in_full(figures) for name, figures in _extra(evaluations).items()},
        breakdowns={"familiarity of the word": seen} | seams,
        calibration=reliability(evaluations),
        audio=audio,
        pictures=pictures,
        confidences=word_confidences(evaluations),
        surprises=surprises,
    )


def _names(manifests: list[str]) -> dict[str, str]:
    """Name the sets by what tells their manifests apart."""
    names = [
        Path(path).name.removesuffix(".gz").removesuffix(".jsonl").removeprefix("cuts_") for path in manifests
    ]
    return dict(zip(names if len(set(names)) == len(names) else manifests, manifests, strict=True))


def _model_name(folder: Path) -> str:
    """Name a model by its folder, or by its run's where training called the folder `bundle`."""
    return folder.parent.name if folder.name == "bundle" else folder.name


def _print(evaluations: "dict[str, Evaluation]", notes: list[str], arguments: argparse.Namespace) -> None:
    """Print one set in detail, several as a table with the details of each; other tables stand alone."""
    from asr.scoring.table import results, summary

    several = len(arguments.manifests) > 1
    reports = {name: evaluation.report for name, evaluation in evaluations.items()}
    extra = _extra(evaluations)
    name, report = next(iter(reports.items()))
    if several or arguments.table != "text":
        print(results(reports, arguments.table, extra))
    else:
        print(f"WER {100 * report.wer:.2f} %, CER {100 * report.cer:.2f} %\n\n{summary(report)}\n")
        notes.insert(0, ", ".join(f"{name} {value}" for name, value in _in_full(extra[name]).items()))
    print("\n".join(notes), file=sys.stdout if arguments.table == "text" else sys.stderr, flush=True)
    for name, report in reports.items():
        for part in details(report, arguments):
            print(f"\n== {name}\n\n{part}" if several else f"\n{part}")
    sys.stdout.flush()


def _extra(evaluations: "dict[str, Evaluation]") -> dict[str, dict[str, str]]:
    """Return each set's FIGURES; the oracle's only if a decoder gave several hypotheses."""
    from asr.evaluation import reliability

    with_oracle = any(evaluation.best for evaluation in evaluations.values())
    extra = {}
    for name, evaluation in evaluations.items():
        judged, best = reliability({name: evaluation}), evaluation.best
        extra[name] = {
            "RTF": f"{evaluation.rtf:.4f}",
            "ECE %": f"{100 * judged.error:.2f}" if judged else "-",
        }
        if with_oracle:
            extra[name]["oracle WER %"] = f"{100 * best.wer:.2f}" if best else "-"
    return extra


def _in_full(figures: dict[str, str]) -> dict[str, str]:
    return {
        FIGURES[name]: value + " %" * (name[-1] == "%" and value != "-") for name, value in figures.items()
    }


def _missed(seen: "list[Group]") -> list[str]:
    """Report how many of the words that training held were missed, and of those that it did not."""
    which = {"seen in training": "words that occur in training", "never seen": "words that do not"}
    parts = (
        f"{100 * group.errors.rate:.2f} % of {group.errors.length} {which[group.name]}" for group in seen
    )
    return [f"missed {', '.join(parts)}"] if seen else []


def _values(evaluation: "Evaluation") -> dict[str, Any]:
    from asr.evaluation import reliability

    judged = reliability({"": evaluation})
    values = evaluation.report.to_dict()
    hypotheses = values.pop("hypotheses")
    return values | {
        "expected_calibration_error": None if judged is None else judged.error,
        "oracle_wer": evaluation.best.wer if evaluation.best else None,
        "rtf": evaluation.rtf,
        "hypotheses": hypotheses,
    }


def _judge(model: "Recognizer", folder: str | None) -> "LanguageModel | None":
    """Load the language model that judges words. Raises AsrError, before hours are spent."""
    if folder is None:
        return None
    from asr.language_model import load_lm
    from asr.rescoring import check_letters

    lm = load_lm(folder)
    check_letters(lm, model.bundle.tokenizer)
    return lm


def _found_wrong(evaluations: "dict[str, Evaluation]", surprises: list[list[float]] | None) -> list[str]:
    """Report how well confidence and a language model's surprise find wrong words."""
    if surprises is None:
        return []
    from asr.evaluation import wrong_words

    found = wrong_words(evaluations, surprises)
    if found is None:
        return ["wrong words: not looked for, as the normalizer joined or cut words"]
    return [
        f"ROC area of finding the {found.wrong} wrong ones of {found.words} words: by confidence "
        f"{found.confidence:.3f}, by the language model's surprise {found.surprise:.3f}, by both {found.both:.3f}"
    ]
