"""Configurations: dataclasses filled from YAML, strictly, and written back.

The YAML is read with the scalars of YAML 1.2: ``1e-3`` is a number, ``on`` and ``yes`` are text, only
``true`` and ``false`` are booleans. Nothing in a file can construct anything but plain values.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from sparsefeat.errors import InputError, did_you_mean
from sparsefeat.io import yaml12
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.text import decode
from sparsefeat.io.yaml12 import KeyPath

T = TypeVar("T")

# 1e-3, which other YAML readers leave as text; it must mean the same here.
_EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")


@dataclasses.dataclass
class _Source:
    """Where values came from, so that an error can name the file and line, or the override."""

    name: str
    lines: dict[KeyPath, int] = dataclasses.field(default_factory=dict)
    overrides: dict[KeyPath, str] = dataclasses.field(default_factory=dict)

    def error(self, path: KeyPath, message: str) -> InputError:
        where = self.name
        for end in range(len(path), 0, -1):
            if path[:end] in self.overrides:
                where = f"override {self.overrides[path[:end]]!r}"
                break
            if path[:end] in self.lines:
                where = f"{self.name}:{self.lines[path[:end]]}"
                break
        return InputError(": ".join(part for part in (where, _dotted(path), message) if part))


def load_config(cls: type[T], path: str | os.PathLike, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into the dataclass ``cls``.

    Args:
        cls: a dataclass; its fields may be bool, int, float, str, Path, Literal, Optional and unions,
            list[...], tuple[...], dict[str, ...] and other dataclasses (sections).
        path: the YAML file. An empty file gives the defaults.
        overrides: ``"optimizer.lr=0.1"``, applied in order on top of the file. The value is YAML, so
            ``null``, ``[1, 2]`` and ``{a: 1}`` work; list items are addressed as ``stages.0.lr``.

    Returns:
        An instance of ``cls``.

    Raises:
        InputError: one line with file and line (or the override), key path, what was given and what was
            expected; for an unknown key, the nearest known one.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the configuration ({error.strerror})") from error
    text = decode(content, path)
    data, lines = yaml12.parse(text, str(path))
    return _build(cls, data, overrides, _Source(str(path), lines))


def config_from_dict(
    cls: type[T],
    data: dict[str, Any] | None,
    where: str = "configuration",
    overrides: Sequence[str] = (),
) -> T:
    """Fill the dataclass ``cls`` from a dictionary, as strictly as ``load_config``.

    Args:
        cls: a dataclass, see ``load_config``.
        data: plain values, for example from a checkpoint. It is not changed. None gives the defaults.
        where: what errors call the source.
        overrides: see ``load_config``.

    Returns:
        An instance of ``cls``.

    Raises:
        InputError: see ``load_config``.
    """
    return _build(cls, data, overrides, _Source(where))


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as nested dictionaries and lists of plain values, ready for YAML or JSON.

    Raises:
        InputError: a value is of a type that cannot be written; its key is named.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise InputError(f"expected an instance of a dataclass, got {config!r}")
    plain: dict[str, Any] = _plain(config, ())
    return plain


def save_config(path: str | os.PathLike, config: Any) -> None:
    """Write a configuration as YAML that ``load_config`` reads back equal, whole or not at all.

    Raises:
        InputError: the folder does not exist or cannot be written, or a value cannot be expressed.
    """
    text = yaml12.dump(to_dict(config))
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _build(cls: type[T], data: Any, overrides: Sequence[str], source: _Source) -> T:
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise TypeError(f"expected a dataclass to fill, got {cls!r}")
    data = _copy(data)
    for text in overrides:
        data = _override(data, text, source)
    built: T = _convert(cls, data, (), source, cls)
    return built


def _copy(value: Any) -> Any:
    """Copy the containers, so that an override changes neither the caller's data nor an aliased section."""
    if isinstance(value, dict):
        return {key: _copy(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_copy(below) for below in value]
    return value


def _override(data: Any, text: str, source: _Source) -> Any:
    """Set one ``a.b=value`` in the plain data and remember where it came from."""
    keys, equals, value_text = text.partition("=")
    parts = [part.strip() for part in keys.split(".")]
    if not equals or not all(parts):
        raise InputError(f"override {text!r}: expected key=value, for example optimizer.lr=0.1")
    value, _ = yaml12.parse(value_text, f"override {text!r}")
    data = {} if data is None else data
    here = data
    path: KeyPath = ()
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(here, list):
            if not part.isdecimal() or int(part) >= len(here):
                raise InputError(
                    f"override {text!r}: {_dotted(path)} is a list of {len(here)} items, numbered from 0; "
                    f"{part!r} is none of them"
                )
            key: str | int = int(part)
        elif isinstance(here, dict):
            key = part
        else:
            place = _dotted(path) or source.name
            raise InputError(f"override {text!r}: {place} is {_given(here)}, not a section")
        path = (*path, key)
        if last:
            here[key] = value
        else:
            if isinstance(here, dict) and here.get(key) is None:
                here[key] = {}
            here = here[key]
    for places in (source.overrides, source.lines):  # what was there before no longer counts
        for known in [known for known in places if known[: len(path)] == path]:
            del places[known]
    source.overrides[path] = text
    return data


# plain values to typed ones -------------------------------------------------------------------------------


def _convert(kind: Any, value: Any, path: KeyPath, source: _Source, root: type) -> Any:
    """Return ``value`` as the annotated type ``kind``, or raise with its place."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(kind, arguments, value, path, source, root)
    if origin is Literal:
        for choice in arguments:
            # 1 == True in Python, but not in a configuration.
            if type(choice) is type(value) and choice == value:
                return choice
        hint = did_you_mean(str(value), map(str, arguments))
        raise source.error(path, f"expected {_describe(kind)}, got {_given(value)}{hint}")
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _convert_section(kind, value, path, source, root)
    if origin in (list, tuple, Sequence) or kind in (list, tuple):
        return _convert_list(kind, origin or kind, arguments, value, path, source, root)
    if origin is dict or kind is dict:
        if not isinstance(value, dict):
            raise source.error(path, f"expected {_describe(kind)}, got {_given(value)}")
        key_kind, item_kind = arguments or (Any, Any)
        return {
            _convert(key_kind, key, (*path, str(key)), source, root): _convert(
                item_kind, item, (*path, str(key)), source, root
            )
            for key, item in value.items()
        }
    scalar = _convert_scalar(kind, value)
    if scalar is _NO:
        raise source.error(path, f"expected {_describe(kind)}, got {_given(value)}")
    return scalar


_NO = object()


def _convert_scalar(kind: Any, value: Any) -> Any:
    """Return the value as a scalar type, or ``_NO``."""
    if kind is None or kind is type(None):
        return None if value is None else _NO
    if kind is bool:
        return value if isinstance(value, bool) else _NO
    if kind is str:
        return value if isinstance(value, str) else _NO
    if kind is Path:
        return Path(value) if isinstance(value, (str, Path)) and str(value) else _NO
    if kind in (int, float):
        if isinstance(value, str) and _EXPONENT.fullmatch(value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return _NO
        if kind is int:
            if isinstance(value, int):
                return value
            return int(value) if math.isfinite(value) and value == int(value) else _NO
        try:
            return _NO if math.isnan(value) else float(value)
        except OverflowError:  # an integer beyond the largest float
            return _NO
    raise TypeError(f"configuration fields of type {kind!r} are not supported")


def _convert_union(
    kind: Any, members: tuple, value: Any, path: KeyPath, source: _Source, root: type
) -> Any:
    if value is None and type(None) in members:
        return None
    members = tuple(member for member in members if member is not type(None))
    if len(members) == 1:  # Optional: the member's own message is the clearer one
        return _convert(members[0], value, path, source, root)
    sections = [member for member in members if dataclasses.is_dataclass(member)]
    if len(sections) == 1 and isinstance(value, dict):
        return _convert(sections[0], value, path, source, root)
    # The member that the value already is goes first, so that text stays text in int | str.
    for member in sorted(members, key=lambda member: member is not type(value)):
        try:
            return _convert(member, value, path, source, root)
        except ValueError:
            continue
    raise source.error(path, f"expected {_describe(kind)}, got {_given(value)}")


def _convert_list(
    kind: Any,
    container: Any,
    arguments: tuple,
    value: Any,
    path: KeyPath,
    source: _Source,
    root: type,
) -> Any:
    if not isinstance(value, (list, tuple)):
        raise source.error(path, f"expected {_describe(kind)}, got {_given(value)}")
    if container is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise source.error(
                path, f"expected {_describe(kind)}, got {len(value)} values: {list(value)!r}"
            )
        kinds: Sequence = arguments
    else:
        kinds = [arguments[0] if arguments else Any] * len(value)
    items = [
        _convert(item_kind, item, (*path, index), source, root)
        for index, (item_kind, item) in enumerate(zip(kinds, value, strict=True))
    ]
    return tuple(items) if container is tuple else items


def _convert_section(cls: type, value: Any, path: KeyPath, source: _Source, root: type) -> Any:
    if isinstance(value, cls):
        return value
    value = {} if value is None else value  # a section whose lines are all commented out
    if not isinstance(value, dict):
        raise source.error(path, f"expected a section with keys, got {_given(value)}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, item in value.items():
        if key not in fields:
            raise source.error((*path, str(key)), _unknown_key(str(key), list(fields), path, root))
        arguments[key] = _convert(hints[key], item, (*path, key), source, root)
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in arguments:
            raise source.error(path, f"the key {name!r} is required ({_describe(hints[name])})")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise source.error(path, str(error)) from error


def _unknown_key(key: str, known: list[str], path: KeyPath, root: type) -> str:
    """Name the nearest known key: in this section, or, when nothing here is alike, anywhere."""

    def likeness(candidate: str) -> float:
        return difflib.SequenceMatcher(
            None, key.lower().replace("-", "_"), candidate.lower()
        ).ratio()

    if not known:
        return "unknown key; this section has no keys"
    nearest = max(known, key=likeness)
    if likeness(nearest) < 0.75:
        everywhere = [place for place in _all_keys(root, (), frozenset()) if place[:-1] != path]
        best = max(everywhere, key=lambda place: likeness(str(place[-1])), default=None)
        if best is not None and likeness(str(best[-1])) > max(0.75, likeness(nearest)):
            return f"unknown key; did you mean {_dotted(best)!r}? (known here: {', '.join(known)})"
    return f"unknown key; did you mean {nearest!r}? (known here: {', '.join(known)})"


def _all_keys(cls: type, path: KeyPath, above: frozenset) -> list[KeyPath]:
    """The paths of all keys of a dataclass and its sections."""
    keys: list[KeyPath] = []
    if cls in above:  # a section that may contain itself
        return keys
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        place = (*path, field.name)
        keys.append(place)
        for kind in (hints[field.name], *typing.get_args(hints[field.name])):
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                keys.extend(_all_keys(kind, place, above | {cls}))
    return keys


# words ----------------------------------------------------------------------------------------------------


def _dotted(path: KeyPath) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _given(value: Any) -> str:
    """A value in the words of someone who writes YAML."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"a section with the keys {', '.join(map(str, value)) or '(none)'}"
    if isinstance(value, (list, tuple)):
        text = repr(list(value))
        return f"the list {text if len(text) <= 60 else text[:57] + '...'}"
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"the text {text}" if isinstance(value, str) else text


_WORDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    Path: "a path",
    Any: "anything",
    type(None): "null",
}


def _describe(kind: Any) -> str:
    """A type in the words of someone who writes YAML."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(repr(choice) for choice in arguments)}"
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(member) for member in arguments)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return "a section with keys"
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)} values ({', '.join(_describe(member) for member in arguments)})"
    if origin in (list, tuple, Sequence) or kind in (list, tuple):
        return f"a list (of {_describe(arguments[0])} each)" if arguments else "a list"
    if origin is dict or kind is dict:
        return "a mapping"
    return _WORDS.get(kind, str(kind))


def _plain(value: Any, path: KeyPath) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name), (*path, field.name))
            for field in dataclasses.fields(value)
            if field.init
        }
    if isinstance(value, dict):
        return {str(key): _plain(item, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise InputError(
        f"{_dotted(path)}: {type(value).__name__} values cannot be written to a configuration"
    )
