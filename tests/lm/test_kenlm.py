"""What KenLM reads from our ARPA files, and what it says of damaged ones."""

import base64
import bz2
import itertools
import lzma
import math
import zlib

import pytest

from asr.errors import DecodingError
from asr.lm.kenlm import load_kenlm, read_vocabulary, score_text
from asr.lm.kneser_ney import build

pytest.importorskip("flashlight.lib.text")
TEXT = ["a b c", "a c b b", "b a c a b", "c a"] * 2 + ["a a b c a"]


@pytest.fixture(params=["lm.arpa", "lm.arpa.gz"])
def arpa(tmp_path, request):
    build(TEXT, 3, (0, 0, 1)).write_arpa(tmp_path / request.param)
    return tmp_path / request.param


def test_every_context_sums_to_one(arpa):
    words = [*read_vocabulary(arpa), "<unk>"]
    model = load_kenlm(arpa, words)
    for context in itertools.product(range(len(words)), repeat=2):
        state = model.start(False)
        for word in context:
            state, _ = model.score(state, word)
        total = sum(10 ** model.score(state, word)[1] for word in range(len(words)))
        assert total + 10 ** model.finish(state)[1] == pytest.approx(1, abs=1e-5)


def test_perplexity_worked_by_hand(tmp_path):
    build(["a"], 2).write_arpa(tmp_path / "lm.arpa")  # p(a | <s>) = p(</s> | a) = 17/24
    score = score_text(tmp_path / "lm.arpa", ["a", ""])
    assert (score.sentences, score.words, score.unknown) == (1, 1, 0)
    assert score.perplexity == pytest.approx(24 / 17, rel=1e-5)


def test_unknown_words_are_counted(arpa):
    score = score_text(arpa, ["a zebra b", "zebra"])
    assert score.unknown_rate == pytest.approx(0.5)
    assert math.isfinite(score.perplexity)
    assert score.known_perplexity < score.perplexity


def test_text_it_was_built_from_is_less_perplexing(arpa):
    assert score_text(arpa, TEXT).perplexity < score_text(arpa, ["c c c", "b b b a"]).perplexity


DAMAGES = {
    "cut": lambda text: text[: len(text) // 2],
    "cut among the words": lambda text: text[: text.index("\tb")],
    "letters for a number": lambda text: text.replace("-0.", "-x.", 8),
    "wrong count": lambda text: text.replace("ngram 2=", "ngram 2=9"),
    "a word twice": lambda text: text.replace("\tb\t", "\tc\t", 1),
    "no ARPA": lambda text: "hello\n",
    "empty": lambda text: "",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files(tmp_path, damage, capfd):
    path = tmp_path / "lm.arpa"
    build(TEXT, 3).write_arpa(path)
    path.write_text(DAMAGES[damage](path.read_text()))
    with pytest.raises(DecodingError, match=r"lm\.arpa"):
        score_text(path, ["a"])
    assert capfd.readouterr().err == ""


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "speech.wav").write_bytes(b"RIFF\xfe\xff" * 20)
    with pytest.raises(DecodingError, match="neither an ARPA file"):
        read_vocabulary(tmp_path / "speech.wav")


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_compressed_file(tmp_path, damage):
    path = tmp_path / "lm.arpa.gz"
    build(TEXT, 3).write_arpa(path)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] if damage == "cut" else content[:40] + bytes(60) + content[100:])
    with pytest.raises(DecodingError, match=r"lm\.arpa\.gz"):
        score_text(path, ["a"])


@pytest.mark.parametrize(("opened", "kind"), [(bz2.open, "bzip2"), (lzma.open, "xz")])
def test_compression_that_kenlm_cannot_read_is_named(tmp_path, opened, kind):
    with opened(tmp_path / "lm.arpa", "wt") as file:
        file.writelines(build(TEXT, 3).arpa_lines())
    with pytest.raises(DecodingError, match=f"is compressed by {kind}; expected gzip, or none"):
        read_vocabulary(tmp_path / "lm.arpa")


@pytest.mark.parametrize("order", [1, 7])
def test_orders_that_kenlm_cannot_read_are_named(tmp_path, order):
    build(["a b c d e f"], order).write_arpa(tmp_path / "lm.arpa")
    with pytest.raises(DecodingError, match=f"is of order {order}; expected 2 to 6"):
        score_text(tmp_path / "lm.arpa", ["a"])


def test_an_arpa_file_as_other_tools_write_it(tmp_path):
    """SRILM: no <unk>, -99 for what cannot be, backoffs only where something follows."""
    lines = [
        "",
        "\\data\\",
        "ngram 1=5",
        "ngram 2=3",
        "",
        "\\1-grams:",
        "-0.69897\t</s>",
        "-99\t<s>\t-0.30103",
    ]
    lines += ["-0.69897\ta\t-0.30103", "-0.69897\tb\u00a0b", "-0.5\tc\t-0.1", "", "\\2-grams:", "-0.3\t<s> a"]
    lines += ["-0.4\ta c", "-0.2\tc </s>", "", "\\end\\", ""]
    (tmp_path / "lm.arpa").write_text("\n".join(lines))
    assert read_vocabulary(tmp_path / "lm.arpa") == ["a", "b\u00a0b", "c"]
    assert score_text(tmp_path / "lm.arpa", ["a c"]).log10_probability == pytest.approx(-0.9)
    assert score_text(tmp_path / "lm.arpa", ["c zebra"]).unknown == 1


def test_missing_file():
    with pytest.raises(DecodingError, match="there is no language model nowhere"):
        score_text("nowhere.arpa", ["a"])


# build(["a b", "a c"], 2) as KenLM's build_binary writes it, `build_binary toy.arpa` and `build_binary trie toy.arpa`:
# there is no tool here that writes them. Compressed by zlib, in base 85.
BINARIES = {
    "probing": (
        "c-qU&O)OBz$yLZGDJihh*U!#KO-"
        "##7%}LQq&d=3P&QD2INXswEO)OC;OD!tS%+FIW<zhg9274f}pAks>2Lg}?BUFY7OdhaD7Gs0btPH3CBrcepefg5OI6E_tz4bxUE{"
        "WcX8|dng0awoVkF~`QvYF7t3+fd2TDFyf?KIcYnpFFz`xOg@?uPv!f`Q@Kq1g(v_9fnC1-"
        "Y|f^LrzE5Fed}>Eigrl+m)$Son4R%YCiy>(+9Jg!h5i3b9l6bxp9*UO3r)A1?Q5wwYhpbEsJXq^7ax?T6axnpQuZ<b5`!dD(UhHp"
        "M`!4<r&9k{FU10CDDH82"
    ),
    "trie": (
        "c-qU&O)OBz$yLZGDJihh*U!#KO-"
        "##7%}LQq&d=3P&QD2INXswEO)OC;OD!tS%+FIW<zhg9274f}pAks>2Lg}?BUFY7Odhajf{KAK8&r-"
        "J$pjd?piXhGWm_qOV0QN9OXA|}TshxA))qg=-uj?vmqc&H4RbB6Nwt5vUm@AOA4DMd#}3U_n6(ea+x*^WKQce@HY-"
        ">?Bbq!j8lQy$6|gd32Zc$JpAAbs9lw6zr2PDA_b=5()q8(uL{?!_nwM?IU{h?zkjP-852TVAk{AF+wo^6"
    ),
}


@pytest.fixture(params=BINARIES)
def binary(tmp_path, request):
    path = tmp_path / "lm.bin"
    path.write_bytes(zlib.decompress(base64.b85decode(BINARIES[request.param])))
    return path


def test_a_binary_says_what_its_arpa_file_says(binary):
    arpa = binary.with_name("lm.arpa")
    build(["a b", "a c"], 2).write_arpa(arpa)
    assert sorted(read_vocabulary(binary)) == ["a", "b", "c"]
    for text in ("a b", "c a a", "zebra"):
        assert score_text(binary, [text]).perplexity == pytest.approx(score_text(arpa, [text]).perplexity)


BINARY_DAMAGES = {
    "cut in the heading": (lambda data: data[:60], "ends in its heading"),
    "cut": (lambda data: data[: len(data) // 2], "promises 6 words and 0 are found"),
    "cut in the last word": (lambda data: data[:-2], "promises 6 words and 5 are found"),
    "letters changed": (lambda data: data[:-8] + b"\xff" * 8, "promises 6 words"),
    "another format": (lambda data: data.replace(b"version 5", b"version 4"), "another format than 5"),
    "unfinished": (
        lambda data: b"mmap lm http://kheafield.com/code incomplete\n" + data[45:],
        "not finished",
    ),
    "without words": (lambda data: data[:100] + b"\0" + data[101:], "built without its words"),
    "another machine": (lambda data: data[:64] + b"\1" + data[65:], "test values don't match"),
}


@pytest.mark.parametrize("damage", BINARY_DAMAGES)
def test_damaged_binaries(binary, damage, capfd):
    change, message = BINARY_DAMAGES[damage]
    binary.write_bytes(change(binary.read_bytes()))
    with pytest.raises(DecodingError, match=rf"lm\.bin.*{message}"):
        score_text(binary, ["a"])
    assert capfd.readouterr().err == ""
