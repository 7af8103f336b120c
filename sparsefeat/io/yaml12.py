"""Plain values from YAML text and back: the scalars of YAML 1.2, no key twice, the line of every key.

PyYAML reads YAML 1.1, where ``1e-3`` is text, ``on`` is a boolean, ``010`` is eight and ``1:30`` is ninety.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from sparsefeat.errors import InputError

KeyPath = tuple[str | int, ...]
"""Keys, and positions in lists, from the top of a document down."""

_MERGE = "tag:yaml.org,2002:merge"
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9][0-9_]*\.[0-9_]*)([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("float", _FLOAT.pattern, "-+.0123456789"),
    # A leading zero means octal to some readers and decimal to others: it stays text and is refused later.
    ("int", r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 scalars that refuses a key given twice."""

    yaml_implicit_resolvers: dict = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes text which YAML 1.2 would read as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+.0123456789")
)


def parse(text: str, name: str) -> tuple[Any, dict[KeyPath, int]]:
    """Read YAML text; nothing but plain values can come of it.

    Args:
        text: one YAML document, or nothing.
        name: what errors call it.

    Returns:
        The value (None for an empty text), and the line of every key and list item, from 1.

    Raises:
        InputError: not YAML, a key given twice, or a tag that asks for more than plain values.
    """
    lines: dict[KeyPath, int] = {}
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, lines
            _number_lines(node, (), lines, set())
            return loader.construct_document(node), lines
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        where = name if mark is None else f"{name}:{mark.line + 1}"
        raise InputError(f"{where}: not valid YAML: {problem}") from error


def dump(value: Any) -> str:
    """Return plain values as YAML text that this module, and YAML 1.1 readers, read back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _number_lines(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], seen: set[int]) -> None:
    if id(node) in seen:  # an alias may contain itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value))
            lines[below] = key.start_mark.line + 1
            _number_lines(value, below, lines, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            _number_lines(value, (*path, index), lines, seen)
