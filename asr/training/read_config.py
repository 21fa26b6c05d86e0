"""The configuration from YAML files and from `--any.key value`, and back: explained, printed, compared."""

import inspect
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from asr.errors import BundleError, ConfigError
from asr.training.begun_from import check_same, values_of_bundle
from asr.training.config import CONFIG, TrainConfig
from asr.wording import nearest

FLAGS = (
    "config",
    "help",
    "print-config",
    "resume",
    "overwrite",
    "seeds",
    "warm-start",
)  # of `asr train` itself

Config = TypeVar("Config")  # a dataclass of sections, as TrainConfig


def read_config(arguments: Sequence[str]) -> TrainConfig:
    """Read `--config FILE` and `--any.key value` into a TrainConfig.

    Later files override earlier ones, and options override all files, wherever they stand. With run.warm_start the
    features, sizes and text settings that are not given are the bundle's. Raises ConfigError that names an unknown
    key, with the nearest valid one, a value of the wrong type, or values that contradict each other.
    """
    config, in_order, given = parse_config(TrainConfig, arguments)
    return _with_bundle(config, in_order, given) if config.run.warm_start else config


def parse_config(kind: type[Config], arguments: Sequence[str]) -> tuple[Config, list[str], dict[str, Any]]:
    """Read `--config FILE` and `--any.key value` into a configuration of a kind.

    Returns it, the arguments with files before options, and {key: value} of what was given. Raises ConfigError as
    `read_config`.
    """
    files, rest = _split(arguments)
    kinds = {setting.key: setting.values for setting in settings(kind)}
    sections = {key.rsplit(".", depth)[0] for key in kinds for depth in range(1, key.count(".") + 1)}
    known = kinds.keys() | sections
    given: dict[str, Any] = {}
    for path in map(Path, files):
        values = read_yaml(path, kind)
        for key in _nested_keys(values):
            if key not in known:
                raise ConfigError(f"{path} has the unknown key {key!r}{_suggestion(key, known)}")
        given |= flat(values)
    options = []
    for name, values in _options(rest):
        key = name.rstrip("+")  # --data.train+ adds to the files' values
        if key not in known:
            raise ConfigError(f"unknown option --{name}{_suggestion(name, {*known, *FLAGS})}")
        value = _value(name, values, kinds.get(key, "a section in YAML"))
        given |= _flat_option(key, value)
        options.append(f"--{name}={value}")
    in_order = [*(f"--config={path}" for path in files), *options]
    return _parse(kind, in_order), in_order, given


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part the files of `--config` from the other arguments."""
    files, options = [], []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name != "--config":
            options.append(argument)
            continue
        file = value if equals else next(rest, "")
        if not file or file.startswith("--"):
            raise ConfigError("--config has no file behind it; expected one in YAML")
        files.append(file)
    return files, options


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each option and the values behind it."""
    found: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            found.append((name, [value] if equals else []))
        elif found:
            found[-1][1].append(argument)
        else:
            raise ConfigError(f"{argument!r} stands before all options; expected one such as --run.seed 1")
    yield from found


def _value(name: str, values: Sequence[str], kind: str) -> str:
    """Return the values behind an option as one in YAML: a list of them where the key takes a list."""
    is_list = "[" in kind
    if not values:
        raise ConfigError(f"--{name} has no value behind it; expected {kind}")
    if len(values) > 1 and not is_list:
        raise ConfigError(
            f"--{name} has {len(values)} values behind it ({', '.join(values)}); expected one, {kind}"
        )
    only_list = is_list and kind.startswith("[") and not values[0].startswith("[") and not name.endswith("+")
    return json.dumps([*map(_loaded, values)]) if len(values) > 1 or only_list else values[0]


def _flat_option(key: str, value: str) -> dict[str, Any]:
    """Return the keys that an option sets: itself or, if its value is a section in YAML, those in it."""
    return flat({key: _loaded(value)})


def _loaded(value: str) -> Any:
    """Return a value as YAML has it, or as it is written where it is no YAML."""
    import yaml

    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def _parse(kind: type[Config], arguments: Sequence[str]) -> Config:
    import jsonargparse

    class Parser(jsonargparse.ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> Any:  # type: ignore[override]
            raise ConfigError(_of_wrong_type(" ".join(str(ex or message).split())[:400], kind))

    parser = Parser(prog="asr train", exit_on_error=True, default_env=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(kind)
    config = parser.instantiate(parser.parse_args(list(arguments)))
    return kind(**{item.name: config[item.name] for item in fields(kind)})  # type: ignore[arg-type] - a dataclass


def _of_wrong_type(message: str, kind: type) -> str:
    """Return jsonargparse's message about a value's type in the words of all others; any other as it is."""
    found = re.match(r'Parser key "(?P<key>[\w.]+)":.*Got value: (?P<value>.*)$', message)
    kinds = {setting.key: setting.values for setting in settings(kind)}
    if found is None or found["key"] not in kinds:
        return message
    return f"{found['key']} is {found['value']}; expected {kinds[found['key']]}"


def _with_bundle(config: TrainConfig, arguments: Sequence[str], given: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration with what the bundle to begin from fixes; raises ConfigError for a contradiction."""
    values = flat(plain(config))
    try:
        fixed, defaults = values_of_bundle(config.run.warm_start)
    except BundleError:
        # A run that is resumed needs the bundle no more.
        before = _values_of_run(Path(config.run.folder))
        if before.get("run.warm_start") != config.run.warm_start:
            return config  # training raises this when it loads the bundle
        fixed = {key: before[key] for key in values if key.startswith(("features.", "model.", "text."))}
        return _parse(TrainConfig, [*_as_options(fixed), *arguments])
    check_same({key: values[key] for key in fixed if key in given}, fixed, config.run.warm_start)
    return _parse(TrainConfig, [*_as_options(fixed | defaults), *arguments])


def _values_of_run(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    return flat(read_yaml(path)) if path.is_file() else {}


def _as_options(values: Mapping[str, Any]) -> list[str]:
    return [
        f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()
    ]


@dataclass(frozen=True)
class Setting:
    """A key of the configuration: its default as YAML has it, its values in words, and its explanation."""

    key: str
    default: Any
    values: str
    explanation: str


def settings(kind: type = TrainConfig, prefix: str = "") -> list[Setting]:
    """Return every key of the configuration in its order, explained by the docstrings of the dataclasses."""
    explained, hints, found = _explanations(kind), get_type_hints(kind), []
    for item in fields(kind):
        key, hint = f"{prefix}{item.name}", hints[item.name]
        if is_dataclass(hint):
            found += settings(hint, f"{key}.")  # type: ignore[arg-type]
        else:
            default = json.loads(json.dumps(item.default))
            found.append(Setting(key, default, _in_words(hint), explained.get(item.name, "")))
    return found


def _explanations(kind: type) -> dict[str, str]:
    """Return {name: explanation} of the attributes that a docstring lists."""
    _, _, text = inspect.getdoc(kind).partition("Attributes:\n")  # type: ignore[union-attr]
    explained = {}
    for entry in re.split(r"\n(?=    \w)", "\n" + text):
        names, _, explanation = entry.strip().partition(": ")
        explained |= dict.fromkeys(names.split(", "), " ".join(explanation.split()).removesuffix("."))
    return explained


def _in_words(hint: Any) -> str:
    """Return the values that a type allows.

    >>> _in_words(float | Literal["auto"]), _in_words(tuple[float, float]), _in_words(bool)
    ('FLOAT|auto', '[FLOAT,FLOAT]', 'true|false')
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "|".join(map(str, parts))
    if origin in (types.UnionType, Union):
        return "|".join(map(_in_words, parts))
    if origin is tuple:
        return "[" + ",".join("..." if part is Ellipsis else _in_words(part) for part in parts) + "]"
    return {bool: "true|false", str: "TEXT", type(None): "null"}.get(hint) or hint.__name__.upper()


def configuration_help(kind: type = TrainConfig, width: int = 100) -> str:
    """Return the help of every key: its values, its explanation and its default."""
    import textwrap

    lines = ["keys of the configuration, in YAML files and as options (--run.seed 2):"]
    for setting in settings(kind):
        text = f"{setting.explanation} (default: {_yaml(setting.default)})"
        lines.append(f"  --{setting.key} {setting.values}")
        lines += textwrap.wrap(text, width, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines) + "\n"


def explained_config(config: Any) -> str:
    """Return every value in force as YAML, each key with its explanation and choices in a comment above it."""
    import textwrap

    values, lines, open_sections = flat(plain(config)), [], ()
    for setting in settings(type(config)):
        *sections, name = setting.key.split(".")
        for depth, section in enumerate(sections):
            if open_sections[: depth + 1] != tuple(sections[: depth + 1]):
                lines.append(f"{'  ' * depth}{section}:")
        open_sections = tuple(sections)
        indent = "  " * len(sections)
        choices = f" ({setting.values})" if "|" in setting.values else ""
        comment = f"{indent}# "
        lines += textwrap.wrap(
            f"{setting.explanation}{choices}", 110, initial_indent=comment, subsequent_indent=comment
        )
        lines.append(f"{indent}{name}: {_yaml(values[setting.key])}")
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()


def config_text(config: Any) -> str:
    """Return every value in force as YAML, in the form that `--config` reads."""
    import yaml

    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def plain(config: Any) -> dict[str, Any]:
    """Return every value in force as YAML has it: nested sections, and lists for tuples."""
    return json.loads(json.dumps(asdict(config)))


def different_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the keys of two `flat` configurations whose values differ; "auto" stands for any value.

    >>> different_keys({"run.seed": 1, "data.batch_seconds": 40.0}, {"run.seed": 2, "data.batch_seconds": "auto"})
    ['run.seed']
    """
    return [
        key for key, value in now.items() if before.get(key, value) not in (value, "auto") and value != "auto"
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"section.key": value} of nested sections.

    >>> flat({"run": {"seed": 1}, "model": {"front_end": {"norm": "batch"}}})
    {'run.seed': 1, 'model.front_end.norm': 'batch'}
    """
    items: dict[str, Any] = {}
    for key, value in values.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return items


def _nested_keys(values: Mapping[str, Any]) -> list[str]:
    """Return the keys of nested sections, and the sections before what is in them."""
    keys = []
    for key in flat(values):
        parts = key.split(".")
        keys += [".".join(parts[: depth + 1]) for depth in range(len(parts))]
    return list(dict.fromkeys(keys))


def read_yaml(path: Path, kind: type = TrainConfig) -> dict[str, Any]:
    """Read a configuration's values as they are written; raises ConfigError for a file that holds none."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no configuration; expected keys such as data, model, run")
    for item in fields(kind):
        if item.name in values and not isinstance(values[item.name], dict):
            raise ConfigError(
                f"{path}: the section {item.name} is {values[item.name]!r}; expected keys, or leave it out"
            )
    return values


def _suggestion(key: str, valid: set[str]) -> str:
    """Return the nearest valid key in words, also one whose section was forgotten."""
    ends = sorted(name for name in valid if name.endswith(f".{key}"))
    return f" (did you mean {ends[0]!r}?)" if ends else nearest(key, valid)
