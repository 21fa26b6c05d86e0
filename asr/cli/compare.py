"""Test whether one of several systems is better than the others on the same references, or whether it is chance.

  asr compare reference.trn system_a.trn system_b.trn
  asr compare data/test a.json b.json c.json --names small large whisper --table markdown

The matched-pair sentence-segment test (Gillick & Cox, 1989) gives the verdict, as NIST's sc_stats does; the paired
bootstrap over speakers (Bisani & Ney, 2004) gives the interval of the difference. Of more than two systems each two are
compared, and p-values are adjusted for the number of tests (Holm, 1979).
"""

import argparse
import json
from typing import TYPE_CHECKING

from asr.cli import results
from asr.cli.console import STDOUT, check_writable, note, write
from asr.cli.options import count
from asr.errors import TextError

if TYPE_CHECKING:
    from asr.scoring.files import Scored
    from asr.scoring.significance import Comparison, Pairwise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    results.add_sides(parser, least=2)
    results.add_table(parser)
    parser.add_argument(
        "--utterances",
        type=count(),
        default=5,
        metavar="N",
        help="number of utterances to show side by side, of two systems (default: 5)",
    )
    parser.add_argument(
        "--words",
        type=count(),
        default=10,
        metavar="N",
        help="number of words to list that differ most, of two systems (default: 10)",
    )
    results.add_json(parser, "all of the comparison")
    results.add_reading(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare and print."""
    from asr.scoring.files import score_systems
    from asr.scoring.significance import compare, compare_all

    check_writable(arguments.json)
    systems = results.systems(arguments)
    if len(systems) < 2:
        raise TextError("one system was given; expected two or more to compare")
    options = results.reading(arguments)
    scored = score_systems(arguments.reference, systems, options, in_common=arguments.mismatched == "skip")
    results.print_notes(scored, arguments)
    reports = {name: system.report for name, system in scored.items()}
    how = {
        "bootstrap": arguments.bootstrap,
        "alternatives": arguments.rules is not None
        or any(system.pairs.alternatives for system in scored.values()),
    }
    if len(reports) == 2:
        comparison = compare(*reports.values(), **how)
        values = comparison.to_dict() | {"names": list(reports)}
    else:
        pairs = compare_all(reports, **how)
        values = {
            "systems": {name: _without_transcripts(report.to_dict()) for name, report in reports.items()},
            "pairs": [pair.to_dict() for pair in pairs],
        }
    if arguments.json:
        write(arguments.json, json.dumps(values, ensure_ascii=False, indent=2) + "\n")
    if arguments.json == STDOUT:
        return 0
    if len(reports) == 2:
        _print_two(comparison, scored, arguments)
    else:
        _print_several(pairs, scored, arguments)
    return 0


def _without_transcripts(values: dict) -> dict:
    return {key: value for key, value in values.items() if key != "hypotheses"}


def _print_result(scored: "dict[str, Scored]", arguments: argparse.Namespace) -> None:
    """Print the systems' results, and what their files were read as."""
    from asr.scoring.files import read_as
    from asr.scoring.table import results as table_of_results

    reports = {name: system.report for name, system in scored.items()}
    print(table_of_results(reports, arguments.table, part="system"))
    if arguments.table == "text":
        print(read_as(scored))
    else:
        note(read_as(scored))


def _print_two(comparison: "Comparison", scored: "dict[str, Scored]", arguments: argparse.Namespace) -> None:
    from asr.scoring.table import table

    lettered = {
        f"{letter}  {name}": system for letter, (name, system) in zip("AB", scored.items(), strict=True)
    }
    _print_result(lettered, arguments)
    if arguments.table != "text":
        print(f"\n{table([_pair_row('A', 'B', comparison)], arguments.table)}")
        return
    print(f"\n{_verdict(comparison)}")
    if words := comparison.words()[: arguments.words]:
        rows = [{"word": word, "A missed": str(a), "B missed": str(b)} for word, a, b in words]
        print(f"\n{table(rows)}")
    for index, _ in comparison.utterances()[: arguments.utterances]:
        print(f"\n{_side_by_side(comparison, index)}")


def _print_several(
    pairs: "list[Pairwise]", scored: "dict[str, Scored]", arguments: argparse.Namespace
) -> None:
    from asr.scoring.table import table, with_note

    ranked = sorted(scored, key=lambda name: scored[name].report.wer)
    _print_result({name: scored[name] for name in ranked}, arguments)
    rows = [
        _pair_row(pair.a, pair.b, pair.comparison)
        | {"p (Holm)": f"{pair.adjusted_p:.2g}", "better": pair.better or ""}
        for pair in pairs
    ]
    explained = (
        f"p (Holm) is adjusted for {len(pairs)} tests of matched pairs; `better` is empty from 0.05 on"
    )
    print(f"\n{with_note(table(rows, arguments.table), explained, arguments.table)}")


def _pair_row(a: str, b: str, comparison: "Comparison") -> dict[str, str]:
    """Return the comparison of two systems as a row of a table."""
    from asr.scoring.table import interval, percent

    test = comparison.matched_pairs
    return {
        "A": a,
        "B": b,
        "A less B, WER %": percent(comparison.difference),
        "95 %": interval(comparison.interval, " to "),
        "segments": str(test.segments),
        "z": f"{test.z:.2f}",
        "p": f"{test.p:.2g}",
    }


def _verdict(comparison: "Comparison") -> str:
    from asr.scoring.table import interval, percent

    test = comparison.matched_pairs
    better = "B" if comparison.difference > 0 else "A"
    verdict = f"{better} is better" if comparison.significant else "no significant difference"
    lines = [f"{verdict}: matched pairs over {test.segments} segments, z = {test.z:.2f}, p = {test.p:.2g}"]
    if comparison.interval is not None and comparison.probability_b_better is not None:
        share = comparison.probability_b_better if better == "B" else 1 - comparison.probability_b_better
        lines.append(
            f"A's WER less B's is {percent(comparison.difference)} points (95 %: "
            f"{interval(comparison.interval, ' to ')}); {better} wins {share:.1%} of resampled test sets "
            f"({comparison.blocks} {comparison.resampled})"
        )
    return "\n".join(lines)


def _side_by_side(comparison: "Comparison", index: int) -> str:
    from asr.scoring.table import aligned

    a, b = comparison.a, comparison.b
    name = a.ids[index]
    return f"{aligned(f'{name} A', a.alignment(index))}\n{aligned(f'{name} B', b.alignment(index))}"
