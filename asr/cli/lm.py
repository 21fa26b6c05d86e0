"""Build, train, evaluate and tune language models: n-grams for beam search, and recurrent ones.

  asr lm build text.txt -o lm.arpa.gz --order 3 --model BUNDLE     normalized as the model's transcripts
  asr lm build text.txt -o lm.bin --max-words 30000 --prune 0 1 1  KenLM's binary format: small, and read at once
  asr lm score lm.arpa.gz other.txt                                perplexity and unknown words
  asr lm train text.txt -o runs/lm --network.cell lstm             a recurrent model
  asr lm score runs/lm other.txt --interpolate lm.arpa.gz          both, and their mixture
  asr lm judge "the cats was full" --lm runs/lm                    each word's probability, and what was expected
  asr lm complete "he had seven" --lm runs/lm                      continuations
  asr lm tune dev.jsonl.gz --lm lm.arpa.gz --model BUNDLE          several sets count alike
  asr lm tune dev.jsonl.gz --lm lm.arpa.gz --rescore-lm runs/lm --model BUNDLE

TEXT is a file of a sentence a line, a manifest of cuts (.jsonl, whose transcripts are taken), or - for standard input;
.gz, .bz2 and .xz are read too. `tune` searches the language model's weight, the word bonus and the blank
penalty, and stores the best in the recognizer. Every key of `train`'s configuration is also an option, listed by
`asr lm train --help`.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli import lm_network, options
from asr.cli.console import STDOUT, note
from asr.errors import DecodingError, TextError

if TYPE_CHECKING:
    from asr.tuning import Trial

TAKES_CONFIGURATION = ("train",)  # what argparse does not know is the configuration's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of each action."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_build(
        actions.add_parser("build", help="estimate a model by interpolated modified Kneser-Ney smoothing")
    )
    lm_network.add_train(actions.add_parser("train", help="train a recurrent model"))
    lm_network.add_score(
        actions.add_parser("score", help="print perplexity and rate of unknown words on a text")
    )
    _add_tune(
        actions.add_parser(
            "tune",
            help="find the best weight, word bonus and blank penalty on a development set, and store them in the model",
        )
    )
    lm_network.add_judge(actions.add_parser("judge", help="print how likely each word of a sentence is"))
    lm_network.add_complete(actions.add_parser("complete", help="print continuations of a sentence"))


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "texts", nargs="+", metavar="TEXT", help="sentences, manifests, or - for standard input"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="file to write: ARPA, compressed if its name ends in .gz, a KenLM binary if in .bin, - to print ARPA",
    )
    parser.add_argument(
        "--order", type=int, default=3, help="length of the longest n-grams, in words (default: 3)"
    )
    parser.add_argument(
        "--prune",
        type=int,
        nargs="+",
        default=[],
        metavar="COUNT",
        help="counts up to which n-grams are left out, by order, the last for the rest, as in 0 0 1 (default: 0)",
    )
    parser.add_argument(
        "--max-words",
        type=options.count(1),
        metavar="N",
        help="most frequent words that the model knows (default: all)",
    )
    parser.add_argument(
        "--model",
        metavar="BUNDLE",
        help="trained model, a folder or a name such as english: the text is normalized as its transcripts",
    )
    parser.add_argument(
        "--tokens",
        action="store_true",
        help="tokens of --model instead of words, for `--lexicon none`",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="DIR|FILE",
        help="words that the model knows, all others being <unk>: those of a recurrent model, which also normalizes "
        "the text, or of a file, one a line",
    )


def _add_tune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "manifests",
        nargs="+",
        metavar="MANIFEST",
        help="cuts.jsonl.gz to tune on, never those of a test set; the mean of several ones' WERs counts",
    )
    parser.add_argument("--model", required=True, metavar="BUNDLE", help="trained model, a folder")
    parser.add_argument("--lm", metavar="FILE", help="n-gram language model")
    parser.add_argument(
        "--rescore-lm",
        metavar="DIR",
        help="recurrent language model, whose weight and bonus in ranking the n best are tuned; --lm then keeps the "
        "weights that were tuned before",
    )
    parser.add_argument("--rescore-weights", type=float, nargs="+", metavar="W", help="its weights to try")
    parser.add_argument("--rescore-bonuses", type=float, nargs="+", metavar="B", help="its bonuses to try")
    parser.add_argument(
        "--lexicon",
        metavar="FILE",
        help="words that may be recognized, one a line, or a pronouncing dictionary, for a model with phones; none: "
        "any word",
    )
    parser.add_argument(
        "--beam-size",
        type=int,
        default=32,
        metavar="N",
        help="hypotheses kept by the beam search (default: 32)",
    )
    parser.add_argument(
        "--lm-weights",
        type=float,
        nargs="+",
        metavar="W",
        help="weights to try, all with all bonuses and penalties given; without it and the next two, a coarse grid and "
        "then its best point's neighbors",
    )
    parser.add_argument("--word-bonuses", type=float, nargs="+", metavar="B", help="bonuses to try")
    parser.add_argument(
        "--blank-penalties", type=float, nargs="+", metavar="P", help="penalties of the blank to try"
    )
    parser.add_argument(
        "--device", default="cpu", help="device of the acoustic model: cpu, cuda, ... (default: cpu)"
    )
    options.add_engine(parser)
    parser.add_argument("--dry-run", action="store_true", help="nothing is stored in the model")


def run(arguments: argparse.Namespace) -> int:
    """Do what the action names."""
    actions = {
        "build": _build,
        "train": lm_network.train,
        "score": _score,
        "judge": lm_network.judge,
        "complete": lm_network.complete,
        "tune": _tune,
    }
    return actions[arguments.action](arguments)


def _build(arguments: argparse.Namespace) -> int:
    from asr.lm.binary import write_binary
    from asr.lm.kenlm import check_order
    from asr.lm.kneser_ney import build

    check_order(arguments.order, "the model asked for (--order)")
    sentences, vocabulary = _sentences(arguments), None
    if arguments.vocabulary is not None:
        sentences, vocabulary = lm_network.within_vocabulary(arguments.vocabulary, sentences)
    model = build(sentences, arguments.order, arguments.prune, arguments.max_words, vocabulary)
    report: Callable[[str], None] = print
    if arguments.output == STDOUT:
        sys.stdout.writelines(model.arpa_lines())
        report = note
    elif arguments.output.endswith(".bin"):
        write_binary(model, arguments.output)
    else:
        model.write_arpa(arguments.output)
    sizes = ", ".join(f"{len(ngrams.word)} {n}-grams" for n, ngrams in enumerate(model.orders, start=1))
    report(f"{arguments.output}: {sizes}")
    if model.fallback_orders:
        orders = ", ".join(map(str, model.fallback_orders))
        report(f"too little text to estimate the discounts of order {orders}: 0.5, 1 and 1.5 are taken")
    return 0


def _score(arguments: argparse.Namespace) -> int:
    return lm_network.score(arguments, _sentences(arguments))


def _sentences(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the texts' sentences, normalized and cut into tokens as the arguments ask."""
    from asr.data.texts import read_texts

    if arguments.model is None:
        if arguments.tokens:
            raise DecodingError("--tokens was given without --model; name the model whose tokens are meant")
        yield from read_texts(arguments.texts)
        return
    from asr.bundle import Bundle, find_bundle
    from asr.decoding.vocabulary import token_names
    from asr.text import normalize

    bundle = Bundle.load(find_bundle(arguments.model))
    names, skipped = token_names(bundle.tokenizer), 0
    for sentence in read_texts(arguments.texts):
        text = normalize(sentence, bundle.normalizer)
        if not arguments.tokens:
            yield text
            continue
        try:
            yield " ".join(names[token] for token in bundle.tokenizer.encode(text))
        except TextError:
            skipped += 1
    if skipped:
        note(f"{skipped} sentences have letters that the model lacks, and are skipped")


def _tune(arguments: argparse.Namespace) -> int:
    from asr.bundle import check_own, store_decoding

    if not arguments.dry_run:
        check_own(arguments.model)  # before the minutes that tuning takes
    if arguments.rescore_lm is not None:
        return lm_network.tune(arguments)
    if arguments.lm is None:
        raise DecodingError("no language model was given; expected --lm FILE or --rescore-lm DIR")
    from asr.recognizer import load
    from asr.tuning import tune

    failures: list[str] = []
    several = ["mean"] if len(arguments.manifests) > 1 else []
    print("  ".join(["lm weight  word bonus  blank penalty  WER %", *several]))
    model = load(arguments.model, arguments.device, engine=arguments.engine, lm="none")
    tuning = tune(
        model,
        arguments.manifests,
        arguments.lm,
        arguments.lexicon,
        beam_size=arguments.beam_size,
        lm_weights=arguments.lm_weights,
        word_bonuses=arguments.word_bonuses,
        blank_penalties=arguments.blank_penalties,
        on_failure=failures.append,
        on_trial=_print_trial,
    )
    for message in failures:
        note(message)
    best, without = tuning.best, tuning.best_without
    names = ("beam_size", "lm_weight", "word_bonus", "blank_penalty")
    weights = {name: getattr(best.config, name) for name in names}
    print(
        f"best: LM weight {weights['lm_weight']}, word bonus {weights['word_bonus']}, blank penalty "
        f"{weights['blank_penalty']}: WER {100 * best.wer:.2f} %"
    )
    if not tuning.helps:
        print(
            f"the language model does not help here: {without.name} has {100 * without.wer:.2f} % without it; nothing "
            "is stored"
        )
    elif not arguments.dry_run:
        store_decoding(arguments.model, {**model.bundle.decoding, **weights})
        print(f"stored in {Path(arguments.model)}")
    return 1 if failures else 0


def _print_trial(trial: "Trial") -> None:
    config = trial.config
    columns = f"{trial.name:>36}"
    if config is not None:
        columns = f"{config.lm_weight:9.2f}  {config.word_bonus:10.2f}  {config.blank_penalty:13.2f}"
    rates = [*trial.wers, trial.wer] if len(trial.wers) > 1 else trial.wers
    print("  ".join([columns, *(f"{100 * rate:5.2f}" for rate in rates)]), flush=True)
