"""Say which of two systems is better on the same references, and whether the difference is more than chance.

  asr compare reference.trn system_a.trn system_b.trn

The matched-pair sentence-segment test (Gillick & Cox, 1989) gives the verdict, as NIST's sc_stats does; the paired
bootstrap over speakers (Bisani & Ney, 2004) gives the interval of the difference.
"""

import argparse
from typing import TYPE_CHECKING

from asr.cli.console import write
from asr.cli.options import count
from asr.cli.results import add_reading_arguments, load_report
from asr.errors import TextError

if TYPE_CHECKING:
    from asr.scoring.significance import Comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("reference", metavar="REFERENCE", help="what was said")
    parser.add_argument("a", metavar="HYPOTHESIS_A", help="what the one system heard")
    parser.add_argument("b", metavar="HYPOTHESIS_B", help="what the other heard")
    add_reading_arguments(parser)
    parser.add_argument(
        "--utterances", type=count(), default=5, metavar="N", help="to show side by side (default: 5)"
    )
    parser.add_argument(
        "--words", type=count(), default=10, metavar="N", help="that differ most, to list (default: 10)"
    )
    parser.add_argument("--json", metavar="FILE", help="write everything there (- prints it instead)")


def run(arguments: argparse.Namespace) -> int:
    """Compare and print."""
    from asr.scoring.significance import compare

    a, b = (load_report(arguments, name)[0] for name in (arguments.a, arguments.b))
    if arguments.mismatched == "skip" and a.ids != b.ids:  # each lacks others: compared is what both have
        both = set(a.ids) & set(b.ids)
        if not both:
            raise TextError(f"{arguments.a} and {arguments.b} have no utterance in common")
        a, b = (load_report(arguments, name, both)[0] for name in (arguments.a, arguments.b))
    comparison = compare(a, b, bootstrap=arguments.bootstrap)
    if arguments.json:
        import json

        write(arguments.json, json.dumps(comparison.to_dict(), ensure_ascii=False, indent=2) + "\n")
        if arguments.json == "-":
            return 0
    print(_verdict(comparison, arguments.a, arguments.b))
    if words := comparison.words()[: arguments.words]:
        from asr.scoring.table import table

        rows = [{"word": word, "A missed": str(a), "B missed": str(b)} for word, a, b in words]
        print(f"\n{table(rows)}")
    for index, _ in comparison.utterances()[: arguments.utterances]:
        print(f"\n{_side_by_side(comparison, index)}")
    return 0


def _verdict(comparison: "Comparison", a: str, b: str) -> str:
    from asr.scoring.table import footnote, percent, row, table

    rows = [
        row(f"{letter}  {name}", report, part="system")
        for letter, name, report in (("A", a, comparison.a), ("B", b, comparison.b))
    ]
    test = comparison.matched_pairs
    better = "B" if comparison.difference > 0 else "A"
    verdict = f"{better} is better" if comparison.significant else "no significant difference"
    lines = [
        table(rows),
        f"{footnote(comparison.a)}",
        "",
        f"{verdict}: matched pairs over {test.segments} segments, z = {test.z:.2f}, p = {test.p:.2g}",
    ]
    if comparison.interval is not None and comparison.probability_b_better is not None:
        share = comparison.probability_b_better if better == "B" else 1 - comparison.probability_b_better
        low, high = map(percent, comparison.interval)
        lines.append(
            f"A's WER less B's is {percent(comparison.difference)} points (95 %: {low} to {high}); "
            f"{better} wins {share:.1%} of resampled test sets ({comparison.blocks} {comparison.resampled})"
        )
    return "\n".join(lines)


def _side_by_side(comparison: "Comparison", index: int) -> str:
    from asr.scoring.table import aligned

    a, b = comparison.a, comparison.b
    name = a.ids[index]
    return f"{aligned(f'{name} A', a.alignment(index))}\n{aligned(f'{name} B', b.alignment(index))}"
