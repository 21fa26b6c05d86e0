"""Find when each word of a known text is spoken.

  asr align speech.wav speech.txt --model BUNDLE             a line a word: start, end, word, confidence
  asr align speech.wav "three one seven" --model BUNDLE -f json
  asr align speech.wav speech.txt --model BUNDLE -f srt -o speech.srt
  asr align speech.wav speech.txt --character-timestamps     a line a letter: start, end, letter, word

TEXT is a file, or the text itself if no file has that name. It is normalized as the model's transcripts were.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli import options
from asr.cli.console import check_writable, write
from asr.errors import AsrError, TextError

if TYPE_CHECKING:
    from asr import Transcript

FORMATS = ("tsv", "json", "srt", "vtt", "ctm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("audio", metavar="AUDIO", help="audio file")
    parser.add_argument(
        "text", metavar="TEXT", help="file with the words spoken in it, or the words themselves"
    )
    options.add_model(parser)
    parser.add_argument(
        "-f",
        "--format",
        choices=FORMATS,
        default="tsv",
        metavar="FORMAT",
        help=f"format: {', '.join(FORMATS)} (default: tsv)",
    )
    parser.add_argument(
        "--character-timestamps",
        action="store_true",
        help="letters: a line for each in tsv, those of each word in json",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default="-",
        help="file to write, whole or not at all (default: print)",
    )
    options.add_device(parser)
    options.add_precision(parser)


def run(arguments: argparse.Namespace) -> int:
    """Align, and print or write the words' times."""
    letters = arguments.character_timestamps
    if letters and arguments.format not in ("tsv", "json"):
        raise AsrError(f"--character-timestamps are for tsv and json; {arguments.format} has words")
    check_writable(arguments.output)
    text = _text(arguments.text)
    transcript = options.load_recognizer(arguments).align(arguments.audio, text, character_times=letters)
    if arguments.format == "tsv":
        output = _table(_letters(transcript) if letters else _words(transcript))
    else:
        from asr.outputs import Layout, render

        facts = options.facts(arguments) | {"file": arguments.audio}
        layout = Layout(word_timestamps=True)
        output = render(transcript, arguments.format, Path(arguments.audio).stem, layout, facts)
    write(arguments.output, output)
    return 0


def _words(transcript: "Transcript") -> list[str]:
    lines = [f"{w.start:.3f}\t{w.end:.3f}\t{w.word}\t{w.confidence:.3f}" for w in transcript.words]
    return ["start\tend\tword\tconfidence", *lines]


def _letters(transcript: "Transcript") -> list[str]:
    lines = [
        f"{letter.start:.3f}\t{letter.end:.3f}\t{letter.character}\t{word.word}"
        for word in transcript.words
        for letter in word.characters
    ]
    return ["start\tend\tcharacter\tword", *lines]


def _table(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _text(argument: str) -> str:
    """Read the text's file; what is no file is the text itself."""
    try:
        if Path(argument).is_file():
            return Path(argument).read_text("utf-8")
    except UnicodeDecodeError:
        raise TextError(f"{argument} is not UTF-8 text; expected the words spoken in the audio") from None
    except OSError:  # too long for a name, or not readable
        pass
    if argument.endswith(".txt"):
        raise TextError(f"there is no text {argument}, or it cannot be read")
    return argument
