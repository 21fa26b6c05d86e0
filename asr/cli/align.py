"""Say when each word of a known text was said.

  asr align speech.wav speech.txt --model BUNDLE             a line a word: start, end, word, confidence
  asr align speech.wav "three one seven" --model BUNDLE -f json
  asr align speech.wav speech.txt --model BUNDLE -f srt -o speech.srt
  asr align speech.wav speech.txt --character-timestamps     a line a letter: start, end, letter, word

TEXT is a file, or the text itself where no file has that name. It is normalized as the model's transcripts were.
"""

import argparse
from pathlib import Path

from asr.cli import options
from asr.cli.console import check_writable, write
from asr.errors import AsrError, TextError

FORMATS = ("tsv", "json", "srt", "vtt", "ctm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("audio", metavar="AUDIO", help="audio file")
    parser.add_argument("text", metavar="TEXT", help="file with what is said in it, or the text itself")
    options.add_model(parser)
    parser.add_argument("-f", "--format", choices=FORMATS, default="tsv", help="(default: tsv)")
    parser.add_argument(
        "--character-timestamps",
        action="store_true",
        help="a line a letter in tsv; the letters of each word in json",
    )
    parser.add_argument("-o", "--output", metavar="FILE", default="-", help="write there instead of printing")
    options.add_device(parser)
    options.add_engine(parser)


def run(arguments: argparse.Namespace) -> int:
    """Align, and print or write the words' times."""
    letters = arguments.character_timestamps
    if letters and arguments.format not in ("tsv", "json"):
        raise AsrError(f"--character-timestamps are for tsv and json; {arguments.format} has words")
    check_writable(arguments.output)
    text = _text(arguments.text)

    from asr.outputs import Layout, render
    from asr.recognizer import load

    model = load(options.model_folder(arguments), arguments.device, engine=arguments.engine)
    transcript = model.align(arguments.audio, text, character_times=letters)
    if arguments.format == "tsv" and letters:
        lines = [
            f"{one.start:.3f}\t{one.end:.3f}\t{one.character}\t{word.word}"
            for word in transcript.words
            for one in word.characters
        ]
        output = "\n".join(["start\tend\tcharacter\tword", *lines]) + "\n"
    elif arguments.format == "tsv":
        lines = [f"{w.start:.3f}\t{w.end:.3f}\t{w.word}\t{w.confidence:.3f}" for w in transcript.words]
        output = "\n".join(["start\tend\tword\tconfidence", *lines]) + "\n"
    else:
        name = Path(arguments.audio).stem
        output = render(transcript, arguments.format, name, Layout(word_timestamps=True))
    write(arguments.output, output)
    return 0


def _text(named: str) -> str:
    """Read the text's file; what is no file is the text itself."""
    try:
        if Path(named).is_file():
            return Path(named).read_text("utf-8")
    except UnicodeDecodeError:
        raise TextError(f"{named} is not UTF-8 text; expected what is said in the audio") from None
    except OSError:  # too long for a name, or not readable
        pass
    if named.endswith(".txt"):
        raise TextError(f"there is no text {named}, or it cannot be read")
    return named
