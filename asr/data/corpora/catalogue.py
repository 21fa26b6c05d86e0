"""The corpora that `asr prepare` knows by name: what they are and where they come from.

Light to import, for `asr prepare --list`; `prepare` reads them.
"""

from dataclasses import dataclass

from asr.data.corpora.download import Archive


@dataclass(frozen=True)
class Corpus:
    """A corpus in the layout in which it is published.

    Attributes:
        about: what is spoken, in a few words.
        hours: of speech.
        license: under which it is published.
        archives: what `--download` fetches.
        by_hand: where to get it otherwise.
        folder: name of the folder in its archives.
    """

    about: str
    hours: str
    license: str
    archives: tuple[Archive, ...] = ()
    by_hand: str = ""
    folder: str = ""


OPENSLR = "https://www.openslr.org/resources"


def _librispeech(number: int, **sha256_of_parts: str) -> tuple[Archive, ...]:
    return tuple(
        Archive(f"{OPENSLR}/{number}/{part.replace('_', '-')}.tar.gz", sha256, part.replace("_", "-"))
        for part, sha256 in sha256_of_parts.items()
    )


# Read by us and tested on folders in the published layout. Checksums are those that the publishers or torchaudio give.
CORPORA = {
    "an4": Corpus(
        "English: spelled words, letters, digits, dates",
        "1",
        "BSD-style",
        archives=(Archive("https://dldata-public.s3.us-east-2.amazonaws.com/an4_sphere.tar.gz"),),
        folder="an4",
    ),
    "common_voice": Corpus(
        "sentences read in 100 languages, one at a time",
        "20,000",
        "CC0",
        by_hand="its publisher asks for an address first, https://commonvoice.mozilla.org/datasets",
    ),
    "fleurs": Corpus(
        "sentences read in 102 languages, one at a time",
        "1,400",
        "CC BY 4.0",
        by_hand="https://huggingface.co/datasets/google/fleurs, the tables and archives of data/LANGUAGE",
    ),
    "fsdd": Corpus(
        "English digits, six speakers",
        "0.4",
        "CC BY-SA 4.0",
        archives=(
            Archive(
                "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"
            ),
        ),
        folder="free-spoken-digit-dataset-1.0.10",
    ),
    "gigaspeech": Corpus(
        "English audiobooks, podcasts and videos",
        "10,000",
        "non-commercial",
        by_hand="its publisher wants a form signed, https://github.com/SpeechColab/GigaSpeech",
    ),
    "librispeech": Corpus(
        "read English books, any of the subsets",
        "960",
        "CC BY 4.0",
        archives=_librispeech(
            12,
            dev_clean="76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
            dev_other="12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
            test_clean="39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
            test_other="d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
            train_clean_100="d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
            train_clean_360="146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
            train_other_500="ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
        ),
        folder="LibriSpeech",
    ),
    "ljspeech": Corpus(
        "read English books, one speaker",
        "24",
        "public domain",
        archives=(
            Archive(
                "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
                "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
            ),
        ),
        folder="LJSpeech-1.1",
    ),
    "mini_librispeech": Corpus(
        "a small part of LibriSpeech",
        "8",
        "CC BY 4.0",
        archives=_librispeech(31, train_clean_5="", dev_clean_2=""),
        folder="LibriSpeech",
    ),
    "mls": Corpus(
        "read books in 8 languages, one at a time",
        "50,000",
        "CC BY 4.0",
        by_hand="https://www.openslr.org/94",
    ),
    "speech_commands": Corpus(
        "35 English words, 2,600 speakers",
        "30",
        "CC BY 4.0",
        archives=(
            Archive(
                "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
                "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
                into="speech_commands_v0.02",
            ),
        ),
        folder="speech_commands_v0.02",
    ),
    "speechocean762": Corpus(
        "English sentences read by Mandarin speakers",
        "6",
        "free for any use",
        archives=(Archive(f"{OPENSLR}/101/speechocean762.tar.gz"),),
        folder="speechocean762",
    ),
    "spgispeech": Corpus(
        "English earnings calls, with punctuation",
        "5,000",
        "non-commercial",
        by_hand="its publisher wants a form signed, https://datasets.kensho.com/datasets/spgispeech",
    ),
    "tedlium": Corpus(
        "English talks, release 3 or 2",
        "452",
        "CC BY-NC-ND 3.0",
        archives=(
            Archive(
                f"{OPENSLR}/51/TEDLIUM_release-3.tgz",
                "ad1e454d14d1ad550bc2564c462d87c7a7ec83d4dc2b9210f22ab4973b9eccdb",
            ),
        ),
        folder="TEDLIUM_release-3",
    ),
    "voxpopuli": Corpus(
        "the European Parliament in 16 languages, one at a time",
        "1,800",
        "CC0",
        by_hand="https://github.com/facebookresearch/voxpopuli has the scripts that fetch it",
    ),
    "yesno": Corpus(
        "yes and no in Hebrew, one speaker",
        "0.1",
        "CC BY 3.0",
        archives=(
            Archive(
                f"{OPENSLR}/1/waves_yesno.tar.gz",
                "c3f49e0cca421f96b75b41640749167b52118f232498667ca7a5f9416aef8e73",
            ),
        ),
        folder="waves_yesno",
    ),
}

# Read as lhotse reads them, and not tested by us: name: (what is spoken, hours, license); "?" where we do not know.
FURTHER = {
    "adept": ("English, the same sentences in many tones, two speakers", "?", "CC BY 4.0"),
    "aishell": ("read Mandarin", "178", "Apache-2.0"),
    "aishell3": ("read Mandarin, 218 speakers", "85", "Apache-2.0"),
    "aishell4": ("Mandarin meetings", "120", "CC BY-SA 4.0"),
    "ali_meeting": ("Mandarin meetings", "120", "CC BY-SA 4.0"),
    "ami": ("English meetings", "100", "CC BY 4.0"),
    "aspire": ("English conversations, far from the microphone", "226", "LDC"),
    "atcosim": ("English of air traffic control", "10", "free for research"),
    "baker_zh": ("read Mandarin, one speaker", "12", "non-commercial"),
    "bengaliai_speech": ("read Bengali", "1,200", "?"),
    "callhome_english": ("English telephone calls among family", "20", "LDC"),
    "cdsd": ("Mandarin of dysarthric speakers", "34", "by agreement"),
    "chime6": ("English dinner parties", "40", "CC BY-SA 4.0"),
    "cmu_arctic": ("read English, a few speakers", "20", "BSD-style"),
    "cmu_indic": ("read languages of India, one speaker each", "?", "BSD-style"),
    "cmu_kids": ("sentences read by children", "9", "LDC"),
    "csj": ("spontaneous Japanese", "660", "by agreement"),
    "cslu_kids": ("English children", "100", "LDC"),
    "daily_talk": ("English dialogues", "20", "CC BY-SA 4.0"),
    "dipco": ("English dinner parties", "5", "CDLA-Permissive"),
    "earnings21": ("English earnings calls", "39", "CC BY-SA 4.0"),
    "earnings22": ("earnings calls, accents of the world", "119", "CC BY-SA 4.0"),
    "ears": ("English in an anechoic room, many styles", "100", "CC BY-NC 4.0"),
    "edacc": ("English dialogues, accents of the world", "40", "CC BY-SA 4.0"),
    "eval2000": ("English telephone calls, a test set", "4", "LDC"),
    "fisher_english": ("English telephone calls", "1,960", "LDC"),
    "gigaspeech2": ("Thai, Indonesian, Vietnamese from the web", "30,000", "non-commercial"),
    "grid": ("English commands of six words, 34 speakers", "28", "CC BY 4.0"),
    "hifitts": ("read English books, ten speakers", "292", "CC BY 4.0"),
    "icmcasr": ("Mandarin in cars", "?", "by agreement"),
    "icsi": ("English meetings", "72", "CC BY 4.0"),
    "kespeech": ("Mandarin and its dialects", "1,542", "non-commercial"),
    "ksponspeech": ("Korean dialogues", "969", "by agreement"),
    "l2_arctic": ("sentences read by learners of English", "24", "CC BY-NC 4.0"),
    "libricss": ("LibriSpeech played in a meeting room", "10", "CC BY 4.0"),
    "libritts": ("read English books, with punctuation", "585", "CC BY 4.0"),
    "librittsr": ("LibriTTS, restored", "585", "CC BY 4.0"),
    "magicdata": ("read Mandarin", "755", "CC BY-NC-ND 4.0"),
    "mdcc": ("Cantonese books", "74", "?"),
    "medical": ("English interviews with patients, acted", "?", "CC BY 4.0"),
    "mgb2": ("Arabic broadcasts", "1,200", "by agreement"),
    "mtedx": ("talks in 8 languages", "765", "CC BY-NC-ND 4.0"),
    "nsc": ("English of Singapore", "10,000", "Singapore Open Data"),
    "oto_speech": ("conversations, transcribed by machine", "141", "?"),
    "peoples_speech": ("English from the web", "30,000", "CC BY, CC BY-SA"),
    "reazonspeech": ("Japanese television", "35,000", "by Japanese law"),
    "sbcsae": ("English conversations", "20", "CC BY-ND 3.0 US"),
    "single_babel_language": ("telephone calls in a language of IARPA's Babel", "?", "LDC"),
    "slu": ("Fluent Speech Commands, English", "15", "non-commercial"),
    "spatial_librispeech": ("LibriSpeech in made-up rooms", "650", "CC BY 4.0"),
    "speechio": ("Mandarin, a collection of test sets", "?", "?"),
    "stcmds": ("Mandarin commands", "110", "CC BY-NC-ND 4.0"),
    "switchboard": ("English telephone calls", "260", "LDC"),
    "thchs_30": ("read Mandarin", "30", "Apache-2.0"),
    "this_american_life": ("English radio programs", "637", "non-commercial"),
    "timit": ("read English, with phones", "5", "LDC"),
    "uwb_atcc": ("English of Czech air traffic control", "20", "CC BY-NC-ND 3.0"),
    "vctk": ("read English, 110 speakers", "44", "CC BY 4.0"),
    "wenet_speech": ("Mandarin podcasts and videos", "10,000", "CC BY 4.0"),
    "wenetspeech4tts": ("Mandarin from the web, cut for synthesis", "12,800", "?"),
    "xbmu_amdo31": ("read Amdo Tibetan", "31", "CC BY-SA 4.0"),
}
CORPORA |= {
    name: Corpus(about, hours, terms, by_hand="`lhotse download --help` tells whether lhotse fetches it")
    for name, (about, hours, terms) in FURTHER.items()
}
# lhotse's recipes for what has no transcripts to learn from: noise, rooms, wake words, unlabeled or mixed speech.
WITHOUT_TRANSCRIPTS = (
    "but_reverb_db bvcc himia librilight librimix_mini mobvoihotwords musan radio rir_noise voxconverse wham"
).split()
# ... and for corpora that are read by us under names of their own.
SUPERSEDED = ("commonvoice", "speechcommands", "tedlium2")
