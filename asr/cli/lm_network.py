"""The actions of `asr lm` for recurrent language models."""

import argparse
import math
import time
from collections.abc import Iterable
from pathlib import Path

from asr.cli import options
from asr.cli.console import note
from asr.cli.trainings import run_training
from asr.errors import DecodingError


def add_train(parser: argparse.ArgumentParser) -> None:
    """Declare what is no part of the configuration; the help lists that too."""
    parser.add_argument(
        "texts",
        nargs="*",
        metavar="TEXT",
        help="sentences to train on, a line each, or manifests (data.train)",
    )
    parser.add_argument("-o", "--output", metavar="DIR", help="folder of the run (run.folder)")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="YAML file of the configuration; later ones override earlier ones",
    )
    parser.add_argument(
        "--model",
        metavar="BUNDLE",
        help="recognizer as which the text is normalized, and whose tokens are the pieces (text.model)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the folder's last checkpoint; a run without any starts from the beginning",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run that the folder holds")
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="number of runs, from run.seed and the seeds after it, into DIR/seedN",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print every key in force, explained, and exit"
    )
    format_help = parser.format_help

    def with_keys() -> str:
        from asr.training.lm.config import LmConfig
        from asr.training.read_config import configuration_help

        return f"{format_help()}\n{configuration_help(LmConfig)}"

    parser.format_help = with_keys  # type: ignore[method-assign]


def train(arguments: argparse.Namespace) -> int:
    """Train; 130 after Ctrl-C and 143 after SIGTERM."""
    return run_training("asr lm train", lambda: _train(arguments))


def _train(arguments: argparse.Namespace) -> int:
    import json

    from asr.errors import ConfigError
    from asr.training.lm.config import LmConfig
    from asr.training.read_config import explained_config, parse_config

    given = [f"--config={path}" for path in arguments.config] + arguments.configuration
    named = {"run.folder": arguments.output, "text.model": arguments.model}
    given += [f"--{key}={value}" for key, value in named.items() if value is not None]
    if arguments.texts:
        given.append(f"--data.train={json.dumps(arguments.texts)}")
    config, _, _ = parse_config(LmConfig, given)
    if arguments.print_config:
        print(explained_config(config), end="")
        return 0
    if not config.data.train:
        raise ConfigError("no text was given; expected files of a sentence a line to train on")
    if arguments.seeds is not None:
        from asr.training.seeds import LANGUAGE_MODELS, train_seeds

        return train_seeds(arguments.seeds, given, arguments.resume, arguments.overwrite, LANGUAGE_MODELS)
    from asr.training.lm.train import train_lm

    return train_lm(config, resume=arguments.resume, overwrite=arguments.overwrite)


def add_score(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `asr lm score`."""
    parser.add_argument(
        "lm",
        metavar="LM",
        help="n-gram model (ARPA file, also compressed, or KenLM binary), or recurrent one (DIR)",
    )
    parser.add_argument(
        "texts", nargs="+", metavar="TEXT", help="sentences, manifests, or - for standard input"
    )
    parser.add_argument(
        "--model", metavar="BUNDLE", help="trained model: the text is normalized as its transcripts"
    )
    parser.add_argument("--tokens", action="store_true", help="tokens of --model instead of words")
    parser.add_argument(
        "--interpolate", metavar="FILE", help="n-gram model to mix with a recurrent LM; all three are scored"
    )
    parser.add_argument(
        "--share",
        type=_share,
        metavar="S",
        help="share of the recurrent model in the mixture, from 0 to 1 (default: the best one for the text)",
    )


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} was given; expected a number from 0 to 1")
    return share


def score(arguments: argparse.Namespace, sentences: Iterable[str]) -> int:
    """Print the perplexity of a model on sentences, and those of a mixture."""
    from asr.lm.kenlm import score_words
    from asr.lm.scored import mix, summarize

    recurrent = Path(arguments.lm).is_dir()
    if arguments.interpolate is not None and not recurrent:
        raise DecodingError(
            f"--interpolate was given and {arguments.lm} is no recurrent model; expected the folder of one, which "
            "`asr lm train` writes, and the n-gram model behind --interpolate"
        )
    began = time.perf_counter()
    if recurrent:
        from asr.language_model import load_lm

        scored = load_lm(arguments.lm).score(sentences)
    else:
        scored = list(score_words(arguments.lm, sentences))
    result = summarize(scored)
    seconds = time.perf_counter() - began
    # A model without <unk> gives unknown words 1e-100.
    with_unknown, known = (
        f"{value:.2f}" if value < 1e6 else f"{value:.1e}"
        for value in (result.perplexity, result.known_perplexity)
    )
    print(f"perplexity {with_unknown}, of known words {known}")
    print(
        f"unknown words {100 * result.unknown_rate:.2f} % ({result.unknown} of {result.words} words in "
        f"{result.sentences} sentences)"
    )
    print(f"{result.words / seconds:.0f} words/s, loading included")
    if arguments.interpolate is not None:
        texts = (" ".join(sentence.words) for sentence in scored)
        found = mix(scored, list(score_words(arguments.interpolate, texts)), arguments.share)
        print(f"over the {found.events} words and ends of sentences that both models know:")
        print(f"  recurrent     perplexity {found.first:.2f}")
        print(f"  n-gram        perplexity {found.second:.2f}")
        below = round(100 * (1 - found.mixed / found.second), 1) + 0.0  # no -0.0
        print(
            f"  interpolated  perplexity {found.mixed:.2f}, {below:.1f} % below the "
            f"n-gram's, with {found.share:.3f} of the recurrent model"
        )
    return 0


def within_vocabulary(name: str, sentences: Iterable[str]) -> tuple[Iterable[str], list[str]]:
    """Return sentences as the named vocabulary has them, and its words. Raises AsrError."""
    path = Path(name)
    if path.is_dir():
        from asr.language_model import find_lm
        from asr.lm.units import WordUnits
        from asr.lm_bundle import LmBundle

        units = LmBundle.load(find_lm(path)).units
        if not isinstance(units, WordUnits):
            raise DecodingError(
                f"the language model {name} is of characters or pieces and has no vocabulary of words; expected one of "
                "words, or a file of words"
            )
        return (" ".join(units.split(sentence)) for sentence in sentences), units.names[2:]
    from asr.data.texts import read_texts

    return sentences, [word for line in read_texts([name]) for word in line.split()]


def add_judge(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `asr lm judge`."""
    parser.add_argument("sentences", nargs="+", metavar="SENTENCE", help="sentences, each quoted")
    parser.add_argument("--lm", required=True, metavar="DIR", help="recurrent language model")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each sentence")


def judge(arguments: argparse.Namespace) -> int:
    """Print each word's log-probability, its rank, and what the model expected instead."""
    import json
    from dataclasses import asdict

    from asr.language_model import load_lm

    lm = load_lm(arguments.lm)
    for number, sentence in enumerate(arguments.sentences):
        judged = lm.judge(sentence)
        if arguments.json:
            print(json.dumps([asdict(word) for word in judged], ensure_ascii=False).replace("NaN", "null"))
            continue
        width = max(4, *(len(word.word) for word in judged))
        print("\n" * bool(number) + f"{'word':{width}}  log prob    rank  expected")
        for word in judged:
            expected = ", ".join(f"{name} {100 * share:.0f} %" for name, share in word.expected)
            rank = str(word.rank) if word.rank else "-"
            unknown = "unknown; " * word.unknown
            print(f"{word.word:{width}}  {word.log_prob:8.2f}  {rank:>6}  {unknown}{expected}")
    return 0


def add_complete(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `asr lm complete`."""
    parser.add_argument("text", metavar="TEXT", help="beginning of a sentence, quoted")
    parser.add_argument("--lm", required=True, metavar="DIR", help="recurrent language model")
    parser.add_argument(
        "-n", "--count", type=options.count(1), default=5, metavar="N", help="continuations (default: 5)"
    )
    parser.add_argument(
        "--temperature",
        type=_temperature,
        default=1.0,
        metavar="T",
        help="divisor of log-probabilities: below 1 likelier words, above 1 more daring ones (default: 1)",
    )
    parser.add_argument(
        "--top-k",
        type=options.count(),
        default=0,
        metavar="K",
        help="likeliest tokens to draw from (default: 0, all)",
    )
    parser.add_argument(
        "--seed", type=options.count(), default=1, metavar="SEED", help="seed of the draws (default: 1)"
    )
    parser.add_argument(
        "--words",
        type=options.count(1),
        default=20,
        metavar="N",
        help="most words of a continuation (default: 20)",
    )


def _temperature(text: str) -> float:
    try:
        temperature = float(text)
    except ValueError:
        temperature = math.nan
    if not 0 < temperature < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} was given; expected a number more than 0")
    return temperature


def complete(arguments: argparse.Namespace) -> int:
    """Print continuations of a sentence, each behind it."""
    from asr.language_model import load_lm

    continuations = load_lm(arguments.lm).complete(
        arguments.text,
        arguments.count,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        seed=arguments.seed,
        most_words=arguments.words,
    )
    for continuation in continuations:
        print(f"{arguments.text} {continuation}".rstrip())
    return 0


def tune(arguments: argparse.Namespace) -> int:
    """Tune the weight of a recurrent model that ranks the n best anew, and store it in the recognizer."""
    from asr.bundle import store_decoding
    from asr.recognizer import load
    from asr.tuning import RESCORE_BONUSES, RESCORE_WEIGHTS, RescoringTrial, tune_rescoring

    def show(trial: RescoringTrial) -> None:
        print(f"{trial.weight:14.2f}  {trial.bonus:10.2f}  {100 * trial.wer:5.2f}", flush=True)

    failures: list[str] = []
    model = load(arguments.model, arguments.device, engine=arguments.engine, lm="none")
    search = {
        "lm": arguments.lm,
        "lexicon": arguments.lexicon,
        "beam_size": arguments.beam_size,
        "processes": 1,
    }
    print("rescore weight  word bonus  WER %")
    trials = tune_rescoring(
        model,
        arguments.manifests,
        arguments.rescore_lm,
        search,
        weights=arguments.rescore_weights or RESCORE_WEIGHTS,
        bonuses=arguments.rescore_bonuses or RESCORE_BONUSES,
        on_failure=failures.append,
        on_trial=show,
    )
    for message in failures:
        note(message)
    without = min((trial for trial in trials if not trial.weight), key=lambda trial: trial.wer)
    best = min((trial for trial in trials if trial.weight), key=lambda trial: trial.wer)
    print(
        f"best: rescore weight {best.weight}, bonus {best.bonus}: WER {100 * best.wer:.2f} %; a bonus of "
        f"{without.bonus} without the recurrent model: {100 * without.wer:.2f} %"
    )
    if best.wer >= without.wer:
        print("the recurrent model does not help here; nothing is stored")
    elif not arguments.dry_run:
        weights = {"rescore_weight": best.weight, "rescore_bonus": best.bonus}
        store_decoding(arguments.model, {**model.bundle.decoding, **weights})
        print(f"stored in {Path(arguments.model)}")
    return 1 if failures else 0
