"""Write the phones of transcripts, by the CMU pronouncing dictionary.

  python recipes/mini_librispeech/phones.py data/mini_librispeech --cmudict /path/to/cmudict.dict

reads cuts_train.jsonl.gz and cuts_dev.jsonl.gz of that folder and writes beside them

  lexicon.txt                                          each word of both and its phones, as the dictionary names them
  cuts_train_phones.jsonl.gz, cuts_dev_phones.jsonl.gz     the same cuts with phones for their text, to begin with

Manifests may be named instead, of several corpora, and language models; then only the lexicon of all their words is
written, into the file that --lexicon names. In the cuts each phone is one Georgian letter, so that no phone is mistaken
for a letter of an English word.
Words that the dictionary lacks get the pronunciation of their stem and ending, of their two parts, or by rules of
spelling.
"""

import argparse
import sys
from pathlib import Path

from asr.data.cuts import load_cuts, manifest_texts, text_of, write_cuts
from asr.errors import AsrError, TextError
from asr.files import replacing
from asr.lm.kenlm import read_vocabulary
from asr.text import normalize

PHONES = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()
LETTERS = {phone: chr(0x10D0 + index) for index, phone in enumerate(PHONES)}
SIBILANTS = ("S", "Z", "SH", "ZH", "CH", "JH")
VOICELESS = ("P", "T", "K", "F", "TH")
SUFFIXES = {
    "ing": "IH NG",
    "in'": "IH N",
    "ly": "L IY",
    "ness": "N AH S",
    "less": "L AH S",
    "ful": "F AH L",
    "er": "ER",
    "est": "AH S T",
    "eth": "AH TH",
    "y": "IY",
    "able": "AH B AH L",
    "ish": "IH SH",
    "ment": "M AH N T",
}
# What is spelled with more letters comes first.
SPELLINGS = dict(
    pair.split("=")
    for pair in (
        "tion=SH AH N|sion=ZH AH N|ough=AO|augh=AO|eigh=EY|igh=AY|tch=CH|dge=JH|sch=SH|ch=CH|sh=SH|th=TH|ph=F|wh=W|"
        "ck=K|ng=NG|qu=K W|gh=G|ee=IY|ea=IY|oo=UW|ou=AW|ow=OW|ai=EY|ay=EY|oi=OY|oy=OY|au=AO|aw=AO|ie=IY|ei=EY|"
        "ar=AA R|er=ER|ir=ER|or=AO R|ur=ER|bb=B|dd=D|ff=F|gg=G|ll=L|mm=M|nn=N|pp=P|rr=R|ss=S|tt=T|zz=Z|x=K S|a=AE|"
        "b=B|c=K|d=D|e=EH|f=F|g=G|h=HH|i=IH|j=JH|k=K|l=L|m=M|n=N|o=AA|p=P|q=K|r=R|s=S|t=T|u=AH|v=V|w=W|y=IY|z=Z"
    ).split("|")
)


class Pronunciations:
    """Phones of any word: the dictionary's pronunciations, the first one above all, or what its spelling suggests.

    Arguments: path of a dictionary in the form of cmudict.dict. `guessed` collects the words by rules of spelling.
    """

    def __init__(self, path: Path):
        self.known: dict[str, list[str]] = {}
        self.others: dict[str, list[list[str]]] = {}  # than the first
        self.guessed: set[str] = set()
        for line in path.read_text("utf-8").splitlines():
            word, *phones = line.partition("#")[0].split()
            spoken = [phone.rstrip("012") for phone in phones]  # without stress
            base = word.partition("(")[0]
            if base not in self.known:
                self.known[base] = spoken
            elif spoken not in (self.known[base], *self.others.get(base, [])):
                self.others.setdefault(base, []).append(spoken)

    def __call__(self, word: str) -> list[str]:
        """Return the phones of a lower-case word; raises TextError for one that no rule covers."""
        for way in (self.known.get, self._inflected, self._derived, self._compound):
            if phones := way(word):
                return phones
        self.guessed.add(word)
        if phones := spelled(word):
            return phones
        raise TextError(f"the word {word!r} has no letter from a to z; expected English words")

    def _inflected(self, word: str) -> list[str] | None:
        endings = dict.fromkeys(("'s", "s'", "es", "s"), plural_ending)
        endings |= dict.fromkeys(("ed", "d"), past_ending)
        for suffix, ending in endings.items():
            if word.endswith(suffix) and (stem := self.known.get(word.removesuffix(suffix))):
                return stem + ending(stem)
        return None

    def _derived(self, word: str) -> list[str] | None:
        for suffix, phones in SUFFIXES.items():
            if not word.endswith(suffix):
                continue
            stem = word.removesuffix(suffix)
            undoubled = stem[:-1] if len(stem) > 2 and stem[-1] == stem[-2] else stem
            for spelling in (stem, stem + "e", undoubled):
                if spelling in self.known:
                    return self.known[spelling] + phones.split()
        return None

    def _compound(self, word: str) -> list[str] | None:
        for cut in range(len(word) - 3, 2, -1):
            first, second = self.known.get(word[:cut]), self.known.get(word[cut:])
            if first and second:
                return first + second
        if word.startswith("un") and word[2:] in self.known:
            return ["AH", "N", *self.known[word[2:]]]
        return None


def plural_ending(stem: list[str]) -> list[str]:
    """Return the phones of the ending -s after a stem."""
    if stem[-1] in SIBILANTS:
        return ["IH", "Z"]
    return ["S"] if stem[-1] in VOICELESS else ["Z"]


def past_ending(stem: list[str]) -> list[str]:
    """Return the phones of the ending -ed after a stem."""
    if stem[-1] in ("T", "D"):
        return ["IH", "D"]
    return ["T"] if stem[-1] in (*VOICELESS, "S", "SH", "CH") else ["D"]


def spelled(word: str) -> list[str]:
    """Return the phones that a word's letters suggest."""
    rest = word.removesuffix("e") if len(word) > 3 else word
    phones: list[str] = []
    while rest:
        spelling = next((spelling for spelling in SPELLINGS if rest.startswith(spelling)), rest[0])
        phones += SPELLINGS.get(spelling, "").split()
        rest = rest[len(spelling) :]
    return phones


def write_phones(folder: Path, pronounce: Pronunciations) -> set[str]:
    """Write both splits with phones for their text; return all words."""
    words: set[str] = set()
    for split in ("train", "dev"):
        cuts = [*load_cuts(folder / f"cuts_{split}.jsonl.gz")]
        for cut in cuts:
            spoken = normalize(text_of(cut) or "", "basic").split()
            words.update(spoken)
            cut.supervisions[0].text = "".join(LETTERS[phone] for word in spoken for phone in pronounce(word))
        write_cuts(cuts, folder, f"{split}_phones")
    return words


def words_of(path: Path) -> set[str]:
    """Return the words of a manifest's transcripts, or of a language model."""
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        return {word for text in manifest_texts(path) for word in normalize(text, "basic").split()}
    return set(read_vocabulary(path))


def write_lexicon(words: set[str], pronounce: Pronunciations, path: Path) -> None:
    """Write a line for each pronunciation, in the order of the alphabet: the word, its phones."""
    lines = []
    for word in sorted(words):
        lines.append(f"{word} {' '.join(pronounce(word))}\n")
        for number, phones in enumerate(pronounce.others.get(word, []), start=2):
            lines.append(f"{word}({number}) {' '.join(phones)}\n")
    with replacing(path) as scratch:
        scratch.write_text("".join(lines), "utf-8")


def main() -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(description="Write the phones of transcripts.", allow_abbrev=False)
    parser.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="FOLDER|FILE",
        help="folder of cuts_train.jsonl.gz and cuts_dev.jsonl.gz, or manifests and language models",
    )
    parser.add_argument("--cmudict", type=Path, required=True, metavar="FILE", help="file cmudict.dict")
    parser.add_argument(
        "--lexicon",
        type=Path,
        metavar="FILE",
        help="lexicon to write (default: lexicon.txt in the first folder)",
    )
    arguments = parser.parse_args()
    first = arguments.sources[0]
    if arguments.lexicon is None and not first.is_dir():
        parser.error(f"{first} is no folder to put the lexicon into; name a file with --lexicon")
    try:
        pronounce = Pronunciations(arguments.cmudict)
        words = set().union(
            *(
                write_phones(path, pronounce) if path.is_dir() else words_of(path)
                for path in arguments.sources
            )
        )
        write_lexicon(words, pronounce, arguments.lexicon or first / "lexicon.txt")
    except (AsrError, OSError, UnicodeDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    guessed = pronounce.guessed
    print(
        f"{len(words)} words, {len(guessed)} of them by rules of spelling, such as {', '.join(sorted(guessed)[:5])}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
