"""Pickles read as data: Python's unpickler, with every name in a file turned into a stand-in of ours.

Nothing is imported: a name either is in the table that the caller gives, where it stands for a harmless maker
of plain values, or the file is refused by that name. The unpickler is the one written in Python, whose
instructions can be replaced one by one; the one in C reserves memory for any index or length that a file names.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sparsefeat.errors import InputError
from sparsefeat.io.damage import DAMAGE, describe


@dataclass(frozen=True)
class Maker:
    """What a class or function named in a pickle stands for: ``make(*arguments)`` gives a plain value."""

    make: Callable[..., Any]


@dataclass(frozen=True)
class Inert:
    """A name that a pickle may mention, but not call (the type in ``defaultdict(dict)``, for instance)."""

    name: str
    value: Any = None


class Record(dict):
    """Stand-in for an object that only holds named values: its items and attributes, in one dictionary."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind


class Readable(Protocol):
    """What a pickle is read from."""

    def read(self, count: int, /) -> bytes: ...

    def readline(self) -> bytes: ...


States = Mapping[type, Callable[[Any, Any], int]]
"""How objects of a type take the state that follows them in a file, and how many bytes they copy for it."""

_REFUSED = (
    "INST OBJ NEWOBJ_EX PERSID EXT1 EXT2 EXT4 BYTEARRAY8 NEXT_BUFFER READONLY_BUFFER".split()
)  # no checkpoint has them
_KEY_TYPES = (str, int, float, bytes, type(None))
_COST = 64  # bytes that an object made by a call counts as, at least
ITEM_COST = 32  # and every item of a list or dictionary that it may copy
_ALLOWANCE = 1 << 16


def unpickle(
    stream: Readable,
    size: int,
    names: Mapping[str, Maker | Inert],
    states: States,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Read one pickle from ``stream``, which is left behind its last byte.

    Args:
        stream: a binary file at the start of a pickle, which reads no more than there is.
        size: of the pickle at most, in bytes; what its calls make is bounded by it.
        names: what the file may name, as ``"module.name"``, and what stands for it.
        states: objects of other types take no state.
        persistent: turns a persistent id (how torch refers to a storage) into a value.

    Raises:
        InputError: the file names anything else, or is damaged. Nothing of it has been run.
    """
    reader = _Unpickler(stream, encoding="latin1")
    reader.names, reader.states, reader.persistent = names, states, persistent
    reader.left = 8 * size + _ALLOWANCE
    try:
        return reader.load()
    except InputError:
        raise
    except EOFError as error:
        raise InputError(
            "damaged or truncated pickle (it ends without its last instruction)"
        ) from error
    except DAMAGE as error:
        raise InputError(f"damaged pickle ({type(error).__name__}: {describe(error)})") from error


def checked_key(value: Any) -> Any:
    """``value`` if it is a number, text or None, or a tuple of these: all that a key in a checkpoint can be."""
    # Tuples within tuples could be deep enough to overflow the interpreter's stack when hashed.
    for part in value if type(value) is tuple else (value,):
        if not isinstance(part, _KEY_TYPES):
            raise TypeError(f"{_describe(value)} as a key")
    return value


class _Unpickler(pickle._Unpickler):
    names: Mapping[str, Maker | Inert]
    states: States
    persistent: Callable[[Any], Any] | None
    left: int  # bytes that calls may still make
    stack: list[Any]
    metastack: list[list[Any]]

    def spend(self, size: int) -> None:
        # Three bytes name a value again; what copies values must not multiply them.
        self.left -= size
        if self.left < 0:
            raise InputError("damaged pickle (it makes many copies of what it holds)")

    def find_class(self, module: str, name: str) -> Maker | Inert:
        known = self.names.get(f"{module}.{name}")
        if known is None:
            raise InputError(
                f"the file asks for {f'{module}.{name}'[:80]}, which is not among the names that a checkpoint may "
                "use; refused, nothing was run"
            )
        return known

    def persistent_load(self, pid: Any) -> Any:
        if self.persistent is None:
            raise InputError("damaged pickle (it refers to a storage where there can be none)")
        self.spend(_COST)
        return self.persistent(pid)

    def load_reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack[-1]
        if not isinstance(called, Maker) or not isinstance(arguments, tuple):
            raise InputError(
                f"the file calls {_describe(called)}, which nothing may; refused, nothing was run"
            )
        texts = sum(len(part) for part in arguments if isinstance(part, (str, bytes)))
        items = sum(len(part) for part in arguments if isinstance(part, (list, dict, tuple)))
        self.spend(_COST + texts + ITEM_COST * items)
        self.stack[-1] = called.make(*arguments)

    load_newobj = load_reduce

    def load_build(self) -> None:
        state, instance = self.stack.pop(), self.stack[-1]
        take = self.states.get(type(instance))
        if take is None:
            raise InputError(
                f"the file sets attributes of {_describe(instance)}; refused, nothing was run"
            )
        self.spend(_COST + take(instance, state))

    def load_stop(self) -> None:
        if len(self.stack) != 1 or self.metastack:
            raise InputError("damaged pickle (it ends with values left over)")
        super().load_stop()  # type: ignore[misc]


def _with_keys(
    load: Callable, kind: type | None, own: bool, step: int
) -> Callable[[_Unpickler], None]:
    """An instruction that puts keys into a dictionary or set, refused where they or their target are others."""

    def checked(reader: _Unpickler) -> None:
        items = reader.stack[-2:] if own else reader.stack
        target = None if kind is None else reader.stack[-3] if own else reader.metastack[-1][-1]
        if kind is not None and not isinstance(target, kind):
            raise TypeError(f"expected a {kind.__name__}, found {_describe(target)}")
        if len(items) % step:
            raise IndexError("a key without a value")
        for key in items[::step]:
            checked_key(key)
        load(reader)

    return checked


def _refusal(text: str) -> Callable[[_Unpickler], None]:
    def refuse(reader: _Unpickler) -> None:
        raise InputError(text)

    return refuse


def _instructions() -> dict[int, Callable[[Any], None]]:
    table = dict.fromkeys(
        range(256), _refusal("damaged or truncated pickle (a byte that is no instruction)")
    )
    keyed = {
        "SETITEM": (dict, True, 2), "SETITEMS": (dict, False, 2), "DICT": (None, False, 2),
        "ADDITEMS": (set, False, 1), "FROZENSET": (None, False, 1),
    }  # fmt: skip
    for opcode in pickletools.opcodes:
        load = getattr(_Unpickler, pickle._Unpickler.dispatch[ord(opcode.code)].__name__)
        if opcode.name in _REFUSED:
            load = _refusal(
                f"the file uses the pickle instruction {opcode.name}, which no checkpoint needs; refused"
            )
        table[ord(opcode.code)] = (
            _with_keys(load, *keyed[opcode.name]) if opcode.name in keyed else load
        )
    return table


_Unpickler.dispatch = _instructions()


def _describe(value: Any) -> str:
    return value.name if isinstance(value, Inert) else f"a {type(value).__name__}"
