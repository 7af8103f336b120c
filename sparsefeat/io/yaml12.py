"""Plain values from YAML text and back: the scalars of YAML 1.2, no key twice, the line of every key.

PyYAML reads YAML 1.1, where ``1e-3`` is text, ``on`` is a boolean, ``010`` is eight and ``1:30`` is ninety.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, ClassVar

import yaml

from sparsefeat.errors import InputError
from sparsefeat.io.damage import DAMAGE, describe

_MAX_VALUES = 100_000  # that aliases may stand for

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


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """SafeLoader with YAML 1.2 scalars that refuses a key given twice."""

    yaml_implicit_resolvers: ClassVar[dict] = {}

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
        mapping: dict = super().construct_mapping(node, deep)
        return mapping


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """SafeDumper that also quotes text which YAML 1.2 would read as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )
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
        InputError: not YAML, a key given twice, a tag that asks for more than plain values, or aliases that
            contain themselves or blow the text up.
    """
    lines: dict[KeyPath, int] = {}
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, lines
            _check_aliases(node)
            _number_lines(node, (), lines, set())
            return loader.construct_document(node), lines
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        where = name if mark is None else f"{name}:{mark.line + 1}"
        raise InputError(f"{where}: not valid YAML: {problem}") from error
    except InputError as error:
        raise InputError(f"{name}{error}") from error
    except DAMAGE as error:  # of tags such as !!bool that do not fit their value
        raise InputError(f"{name}: not valid YAML: {describe(error)}") from error


def _check_aliases(root: yaml.Node) -> None:
    """Refuse aliases that contain themselves, and those that make many values of a short text.

    An alias stands for all that its anchor has, and so do the aliases within: ten lines can mean a billion values.
    """
    sizes: dict[int, int] = {}  # of nodes that are done; 0: being looked at
    pending = [(root, False)]
    while pending:
        node, below_done = pending.pop()
        children = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        if below_done:
            sizes[id(node)] = min(10**12, 1 + sum(sizes[id(child)] for child in children))
            continue
        if id(node) in sizes:
            if not sizes[id(node)]:
                raise InputError(
                    f":{node.start_mark.line + 1}: not valid YAML: an alias that contains itself"
                )
            continue
        sizes[id(node)] = 0
        pending.append((node, True))
        pending.extend((child, False) for child in children)
    if sizes[id(root)] > max(_MAX_VALUES, len(sizes)):
        raise InputError(
            f": not valid YAML: aliases that stand for {sizes[id(root)]} values, expected {_MAX_VALUES}"
        )


def dump(value: Any) -> str:
    """Return plain values as YAML text that this module, and YAML 1.1 readers, read back equal."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _number_lines(
    node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], seen: set[int]
) -> None:
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
