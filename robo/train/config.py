"""The resolved config of a training: what is trained on what, by which kind of policy, with which settings.

The keys are the fields of `Config` plus, nested, those of the policy kind's own frozen
dataclasses: ``seed``, ``train.steps``, ``plan.margin``. They come from a YAML file and from
options on the command line, later ones winning. Nothing here imports torch unless the policy does.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from policies.learner import PolicyKind
from policies.registry import POLICIES
from robo.core.errors import ConfigError, UnknownNameError
from robo.core.files import read_text
from robo.core.machine import gpu_of
from tasks.registry import is_task_file, load_task
from tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Config:
    """A resolved config.

    Attributes:
        task: Name of a registered task, or the path of a task file.
        policy: Name of the kind of policy; by default the one that the task names.
        preset: Name of the settings to begin with, of kinds of policies that have some; others change them.
        seed: Seeds everything random, 0 or more.
        device: Where training computes: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Threads of torch on the CPU; part of what makes two trainings bit-equal.
        program: File with what is wanted instead of what the task itself says; `robo-instruct` writes one. Empty: none.
        name: Folder of the run under the folder of runs; empty for the task's own name.
        log_every: Steps between logged metrics.
        checkpoint_every: Steps between checkpoints.
        film_every: Steps between films of what is learned so far, of kinds of policies that have some; 0: none.
        log_wandb: Project of Weights & Biases that metrics and films go to, too; empty: nothing leaves this machine.
        settings: The policy kind's own config; its fields are keys of the top level too.
    """

    task: str
    policy: str
    preset: str = ""
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    program: str = ""
    name: str = ""
    log_every: int = 10
    checkpoint_every: int = 200
    film_every: int = 2000
    log_wandb: str = ""
    settings: Any = field(metadata={"key": False})

    def __post_init__(self) -> None:
        for key in ("threads", "log_every", "checkpoint_every"):
            if getattr(self, key) < 1:
                raise ConfigError(f"config key {key!r} must be at least 1, not {getattr(self, key)}")
        if self.film_every < 0:
            raise ConfigError(f"config key 'film_every' must not be negative, not {self.film_every}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"config key 'seed' must be 0 or more and below 2^63, not {self.seed}")
        gpu_of(self.device)
        if self.name and (Path(self.name).name != self.name or self.name.startswith(".")):
            raise ConfigError(f"config key 'name' must be one folder name, not {self.name!r}")

    @property
    def kind(self) -> PolicyKind:
        """The kind of policy."""
        return POLICIES.make(self.policy)

    def open_task(self) -> Task:
        """The task, with what the program says if there is one.

        Raises:
            TaskError: It does not load, or takes no program.
            RoboError: The program cannot be read or does not fit.
        """
        task = load_task(self.task)
        if not self.program:
            return task
        from tasks.instruct.program import Program
        from tasks.tabletop.base import tabletop_task

        return Program.load(self.program).apply(tabletop_task(task))

    def keys(self) -> dict[str, Any]:
        """All keys with their values, nested as in the YAML file: plain numbers, texts, lists and mappings."""
        top = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata.get("key", True)}
        return _plain(top | dataclasses.asdict(self.settings))

    def to_yaml(self) -> str:
        """The config as YAML; `resolve` of it gives an equal config."""
        return yaml.safe_dump(self.keys(), sort_keys=False)


def resolve(target: str | Path, options: Mapping[str, str] | Sequence[tuple[str, str]] = ()) -> Config:
    """The config of a target and options.

    Args:
        target: A registered task's name, a task file (``.py``) or a config file (``.yaml``).
        options: Dotted keys → values as YAML text (``train.steps`` → ``"2000"``); they win over the file.

    Raises:
        ConfigError: A file that cannot be read, an unknown key (names the nearest), a value
            of the wrong type or out of range.
        UnknownNameError: An unknown kind of policy.
    """
    target = Path(target) if Path(target).suffix in (".yaml", ".yml") else str(target)
    values = read_config(target) if isinstance(target, Path) else {"task": target}
    for key, text in dict(options).items():
        _put(values, key, _Option(text))
    return build(values)


def altered(config: Config, options: Mapping[str, str]) -> Config:
    """A config with some of its policy's own keys changed.

    Args:
        config: Of a run.
        options: Dotted keys → values as YAML text, as for `resolve`.

    Raises:
        ConfigError: A key that is none of the policy's (names those alike), a value of the wrong type or out of range.
    """
    own, values = list(_dotted(type(config.settings))), config.keys()
    for key, text in options.items():
        if key not in own:
            raise _unknown_key(key, own)
        _put(values, key, _Option(text))
    return build(values)


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; files it names are taken relative to its folder.

    Raises:
        ConfigError: No such file, no YAML, no mapping, or no ``task`` in it.
    """
    if not path.is_file():
        raise ConfigError(f"no such config file: {path}")
    try:
        values = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path} is no YAML{where}: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path} must hold a mapping of config keys, such as 'task: reach_avoid'")
    if not isinstance(values.get("task"), str):
        raise ConfigError(f"{path} must name its task, such as 'task: reach_avoid'")
    if is_task_file(values["task"]):
        values["task"] = str(path.parent / Path(values["task"]).expanduser())
    if isinstance(values.get("program"), str) and values["program"]:
        values["program"] = str(path.parent / Path(values["program"]).expanduser())
    return values


def build(values: Mapping[str, Any]) -> Config:
    """A config from nested values; keys that are not given take their defaults.

    Raises:
        ConfigError: An unknown key, a value of the wrong type or out of range.
    """
    policy = values.get("policy")
    if policy is None:
        policy = load_task(str(values.get("task", ""))).policy
        values = {**values, "policy": policy}
    if not isinstance(policy, str):
        raise ConfigError(f"config key 'policy' must be a name, not {policy!r}")
    kind = POLICIES.make(str(policy))
    known = list(_dotted(Config)) + list(_dotted(kind.config))
    _check_keys(values, known)
    own = {f.name for f in dataclasses.fields(kind.config)}
    preset, base = _preset(kind, _check_type("preset", str, values.get("preset", "")))
    settings = dataclasses.replace(base, **_checked(base, {k: v for k, v in values.items() if k in own}))
    hints = get_type_hints(Config)
    top = {k: _check_type(k, hints[k], v) for k, v in values.items() if k not in own}
    return Config(**top | {"preset": preset, "settings": settings})


def _preset(kind: PolicyKind, name: str) -> tuple[str, Any]:
    """Name and settings of what a config of a kind of policy begins with."""
    if not kind.presets:
        if name:
            raise ConfigError(f"config key 'preset': policy {kind.name} has none; leave it out, not {name!r}")
        return "", kind.config()
    name = name or next(iter(kind.presets))
    if name not in kind.presets:
        raise UnknownNameError(f"preset of policy {kind.name}", name, kind.presets)
    return name, kind.presets[name]


def _checked(base: Any, values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """New values of fields of a dataclass, from nested ones, each checked against the type of its field."""
    hints, found = get_type_hints(type(base)), {}
    for key, value in values.items():
        name, old = f"{prefix}{key}", getattr(base, key)
        if dataclasses.is_dataclass(old):
            found[key] = dataclasses.replace(old, **_checked(old, value, f"{name}."))  # type: ignore[type-var]
        else:
            found[key] = _check_type(name, hints[key], value)
    return found


class _Option(str):
    """The text of an option: taken as it is where a text is wanted, read as YAML elsewhere."""


def _check_type(name: str, kind: Any, value: Any) -> Any:
    if isinstance(value, _Option):
        value = str(value) if kind is str else _parse(name, value)
    if isinstance(value, bool) and kind in (int, float):  # pydantic would take true for 1
        raise ConfigError(f"config key {name!r} must be {_type_name(kind)}, not {value!r}")
    try:
        return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"config key {name!r} must be {_type_name(kind)}, not {value!r}") from error


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        return f"a list [a, b, ...], each {_type_name(get_args(kind)[0])}"
    return {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false"}.get(kind) or (
        str(kind).replace("typing.", "")
    )


def _unknown_key(name: str, known: Sequence[str]) -> UnknownNameError:
    """Kinds of policies have up to a hundred keys: those alike are named, and of the others their groups."""
    alike = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    groups = {f"{first}{dot}*" if dot else first for first, dot, _ in (key.partition(".") for key in known)}
    return UnknownNameError("config key", name, {*alike, *groups}, "robo-train TARGET --dry-run prints all keys")


def _check_keys(values: Mapping[str, Any], known: Sequence[str], prefix: str = "") -> None:
    groups = {key.rpartition(".")[0] for key in known} - {""}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in known:
            continue
        if name not in groups:
            raise _unknown_key(name, known)
        if not isinstance(value, Mapping):
            inner = [k for k in known if k.startswith(f"{name}.")]
            raise ConfigError(f"config key {name!r} is a group ({', '.join(inner)}), not {value!r}")
        _check_keys(value, known, f"{name}.")


def _dotted(kind: type, prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(kind)
    for f in dataclasses.fields(kind):
        if not f.metadata.get("key", True):
            continue
        if dataclasses.is_dataclass(hints[f.name]):
            yield from _dotted(hints[f.name], f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}"


def _parse(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"option --{key}: {text!r} is no value that YAML knows") from error


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        inner = values.get(group)
        values[group] = dict(inner) if isinstance(inner, Mapping) else {}
        values = values[group]
    values[last] = value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
