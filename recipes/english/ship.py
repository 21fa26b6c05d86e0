"""Make a trained model and a language model the ones that come with asr, and write their results into the model card.

  python recipes/english/ship.py runs/english_consistency/bundle \\
      --lm data/english/lm.bin --lexicon data/english/lm_lexicon.txt

copies them into asr/bundles/english, tunes the language model's weight, word bonus and blank penalty on the development
sets of the recipe's configuration, and writes the commands of RESULTS and what they print between the card's marks.
Without --lm the language model, the lexicon and the weights stay. It runs where data/ is.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from asr.bundle import BUNDLES, CONFIG_FILE, LEXICON_FILE, LM_FILE, Bundle
from asr.errors import AsrError

SHIPPED = BUNDLES / "english"
CARD = "README.md"
RECIPE = Path(__file__).with_name("config.yaml")
MARKS = ("<!-- results begin -->\n", "<!-- results end -->\n")
WEIGHTS = "--lm-weights 0.4 0.5 --word-bonuses 0.25 0.5 --blank-penalties 2"
RESULTS = (
    "asr evaluate {dev} --model english --no-lm --table markdown",
    "asr evaluate {dev} --model english --by speaker --table markdown",
    "asr evaluate data/speechocean762/cuts_dev.jsonl.gz --model english --by age:16 gender --table markdown",
)


def copy(source: Path, lm: Path | None, lexicon: Path | None, data: dict) -> None:
    """Copy a bundle's files, and keep the language model's weights that were stored; name the recipe's manifests."""
    stored = json.loads((SHIPPED / CONFIG_FILE).read_text("utf-8")) if SHIPPED.is_dir() else {}
    SHIPPED.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.name != CARD:
            shutil.copyfile(path, SHIPPED / path.name)
    for file, name in ((lm, LM_FILE), (lexicon, LEXICON_FILE)):
        if file is not None:
            shutil.copyfile(file, SHIPPED / name)
    config = json.loads((SHIPPED / CONFIG_FILE).read_text("utf-8"))
    config["decoding"] = config["decoding"] or stored.get("decoding", {})
    config["training"]["train_manifests"] = data["train"]
    (SHIPPED / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    # As this version writes it, which starts faster than a bundle of an older one.
    Bundle.load(SHIPPED).tokenizer.save(SHIPPED)


def run(command: str) -> str:
    """Run a command of asr, and return what it prints; raises CalledProcessError."""
    arguments = shlex.split(command)[1:]
    return subprocess.run(
        [sys.executable, "-m", "asr", *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def write_card(results: list[tuple[str, str]]) -> None:
    """Replace the results of the model card: each command, and the table that it printed."""
    text = (SHIPPED / CARD).read_text("utf-8")
    before, _, rest = text.partition(MARKS[0])
    _, found, after = rest.partition(MARKS[1])
    if not found:
        raise AsrError(f"{SHIPPED / CARD} lacks the lines {MARKS[0].strip()} and {MARKS[1].strip()}")
    parts = [f"```\n{command}\n```\n\n{printed.strip()}\n" for command, printed in results]
    (SHIPPED / CARD).write_text(
        before + MARKS[0] + "\n" + "\n".join(parts) + "\n" + MARKS[1] + after, "utf-8"
    )


def main() -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(description="Ship the English model.", allow_abbrev=False)
    parser.add_argument("bundle", type=Path, help="folder of the trained model")
    parser.add_argument("--lm", type=Path, metavar="FILE", help="language model: a KenLM binary")
    parser.add_argument("--lexicon", type=Path, metavar="FILE", help="pronunciations of its words")
    parser.add_argument("--weights", default=WEIGHTS, help=f"options of `asr lm tune` (default: {WEIGHTS})")
    arguments = parser.parse_args()
    data = yaml.safe_load(RECIPE.read_text("utf-8"))["data"]
    dev = " ".join(data["dev"])
    try:
        copy(arguments.bundle, arguments.lm, arguments.lexicon, data)
        if arguments.lm is not None:
            files = f"--lm {SHIPPED / LM_FILE}" + f" --lexicon {SHIPPED / LEXICON_FILE}" * bool(
                arguments.lexicon
            )
            print(run(f"asr lm tune {dev} --model {SHIPPED} {files} {arguments.weights}"))
        write_card([(command, run(command)) for command in (item.format(dev=dev) for item in RESULTS)])
    except (AsrError, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"shipped: {SHIPPED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
