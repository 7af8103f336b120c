"""Pickles read as data: a small machine that builds plain values and runs nothing that a file names.

Python's own unpickler turns every name in a file into the object of that name, calls it, and sets
attributes on it. This one never imports anything: a name either is in the table that the caller gives,
where it stands for a harmless maker of plain values, or the file is refused by that name.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from sparsefeat.errors import InputError


@dataclass(frozen=True)
class Maker:
    """What a class or function named in a pickle stands for: ``make(*arguments)`` gives a plain value."""

    make: Callable[..., Any]


@dataclass(frozen=True)
class Inert:
    """A name that a pickle may mention, but not call (the type in ``defaultdict(dict)``, for instance)."""

    name: str
    value: Any = None


class Unfinished:
    """A value whose content follows later in the file; ``build(state)`` gives what takes its place."""

    def build(self, state: Any) -> Any:
        raise NotImplementedError


class Record(dict):
    """Stand-in for an object that only holds named values: its items and attributes, in one dictionary."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def absorb(self, state: Any) -> None:
        """Take over the attributes of an object's state; an item of the same name stays."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                for name, value in part.items():
                    self.setdefault(name, value)


_PUSH_ARGUMENT = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE "
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
_PUSH_CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUSH_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = frozenset(("PROTO", "FRAME"))
_KEY_TYPES = (str, int, float, bytes, type(None))


def unpickle(
    stream: BinaryIO, names: Mapping[str, Maker | Inert], persistent: Callable[[Any], Any] | None = None
) -> Any:
    """Read one pickle from ``stream``, which is left behind its last byte.

    Args:
        stream: a binary file at the start of a pickle.
        names: what the file may name, as ``"module.name"``, and what stands for it.
        persistent: turns a persistent id (how torch refers to a storage) into a value.

    Raises:
        InputError: the file names anything else, or is damaged. Nothing of it has been run.
    """
    return _Machine(names, persistent).run(stream)


class _Machine:
    def __init__(self, names: Mapping[str, Maker | Inert], persistent: Callable[[Any], Any] | None):
        self.names = names
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []  # the stacks below each open mark
        self.memo: dict[int, Any] = {}

    def run(self, stream: BinaryIO) -> Any:
        opcodes = pickletools.genops(stream)
        while True:
            try:
                opcode, argument, position = next(opcodes)  # pickletools checks some lengths by assertion
            except (ValueError, OverflowError, AssertionError, StopIteration) as error:
                raise InputError(f"damaged or truncated pickle ({error})") from error
            if opcode.name == "STOP":
                if len(self.stack) != 1 or self.marked:
                    raise InputError("damaged pickle (it ends with values left over)")
                return self.stack[0]
            try:
                self.step(opcode.name, argument)
            except (
                LookupError,
                TypeError,
                AttributeError,
                UnicodeError,
                OverflowError,
                RuntimeError,
            ) as error:
                raise InputError(
                    f"damaged pickle ({opcode.name} at byte {position}: {type(error).__name__} {error})"
                ) from error

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in _PUSH_ARGUMENT:
            stack.append(argument)
        elif opcode in _PUSH_CONSTANT:
            stack.append(_PUSH_CONSTANT[opcode])
        elif opcode in _PUSH_EMPTY:
            stack.append(_PUSH_EMPTY[opcode]())
        elif opcode in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            items = tuple(stack[-count:])
            if len(items) != count:
                raise IndexError("too few values on the stack")
            stack[-count:] = [items]
        elif opcode == "MARK":
            self.marked.append(stack)
            self.stack = []
        elif opcode == "TUPLE":
            self.push(tuple(self.pop_mark()))
        elif opcode == "LIST":
            self.push(self.pop_mark())
        elif opcode in ("DICT", "SETITEMS"):
            items = self.pop_mark()
            target = {} if opcode == "DICT" else self.top(dict)
            if len(items) % 2:
                raise IndexError("a key without a value")
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[checked_key(key)] = value
            if opcode == "DICT":
                self.push(target)
        elif opcode == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self.top(dict)[checked_key(key)] = value
        elif opcode == "APPEND":
            value = stack.pop()
            self.top(list).append(value)
        elif opcode == "APPENDS":
            items = self.pop_mark()
            self.top(list).extend(items)
        elif opcode == "ADDITEMS":
            items = self.pop_mark()
            self.top(set).update(checked_key(item) for item in items)
        elif opcode == "FROZENSET":
            self.push(frozenset(checked_key(item) for item in self.pop_mark()))
        elif opcode == "GLOBAL":
            module, _, name = argument.partition(" ")
            stack.append(self.find(module, name))
        elif opcode == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            stack.append(self.find(module, name))
        elif opcode in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            if not isinstance(called, Maker) or not isinstance(arguments, tuple):
                raise InputError(
                    f"the file calls {_describe(called)}, which nothing may; refused, nothing was run"
                )
            stack.append(called.make(*arguments))
        elif opcode == "BUILD":
            state = stack.pop()
            self.build(state)
        elif opcode == "BINPERSID":
            if self.persistent is None:
                raise InputError("damaged pickle (it refers to a storage where there can be none)")
            stack.append(self.persistent(stack.pop()))
        elif opcode == "POP":
            if stack:
                stack.pop()
            else:
                self.pop_mark()
        elif opcode == "POP_MARK":
            self.pop_mark()
        elif opcode == "DUP":
            stack.append(stack[-1])
        elif opcode not in _NOTHING:
            raise InputError(
                f"the file uses the pickle instruction {opcode}, which no checkpoint needs; refused"
            )

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marked.pop()
        return items

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"expected a {kind.__name__}, found {_describe(self.stack[-1])}")
        return self.stack[-1]

    def find(self, module: Any, name: Any) -> Any:
        known = self.names.get(f"{module}.{name}")
        if known is None:
            raise InputError(
                f"the file asks for {module}.{name}, which is not among the names that a checkpoint may use; "
                "refused, nothing was run"
            )
        return known

    def build(self, state: Any) -> None:
        instance = self.stack[-1]
        if isinstance(instance, Record):
            instance.absorb(state)
        elif isinstance(instance, Unfinished):
            finished = instance.build(state)
            self.stack[-1] = finished
            for key in [key for key, value in self.memo.items() if value is instance]:
                self.memo[key] = finished
        elif not isinstance(instance, dict):
            raise InputError(f"the file sets attributes of {_describe(instance)}; refused, nothing was run")
        # What is left are dictionaries with attributes: an OrderedDict of weights has its layers' versions.


def checked_key(value: Any) -> Any:
    """``value`` if it is a number, a string or None, which is all that a key in a checkpoint can be."""
    # Nested tuples as keys could be made deep enough to overflow the interpreter's stack when hashed.
    if not isinstance(value, _KEY_TYPES):
        raise TypeError(f"{_describe(value)} as a key")
    return value


def _describe(value: Any) -> str:
    return value.name if isinstance(value, Inert) else f"a {type(value).__name__}"
