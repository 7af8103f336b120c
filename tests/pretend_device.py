"""A device that is not there: tensors that say "cuda:0" and hold CPU tensors, to find device errors without a GPU.

While a :class:`PretendDevice` is entered, whatever is asked for on "cuda" is a :class:`Pretended` tensor, and
what CUDA refuses is refused: tensors of different devices in one operation. Counted is what makes the host wait.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CUDA, META = torch.device("cuda", 0), torch.device("meta")
ATEN = torch.ops.aten

WAITS = {
    ATEN._local_scalar_dense,
    ATEN.nonzero,
    ATEN.masked_select,
    ATEN.equal,
    ATEN.is_nonzero,
    ATEN.bincount,
    ATEN.unique_dim,
    ATEN.unique_consecutive,
    ATEN.unique_dim_consecutive,
    ATEN._unique,
    ATEN._unique2,
}
"""Operations whose result, or its size, the host has to know."""

INDEXING = {ATEN.index, ATEN.index_put, ATEN.index_put_, ATEN._index_put_impl_}
"""Those that take indices from the CPU as well, and copy them."""

COPIES = {ATEN.copy_, ATEN._to_copy}


class Pretended(Tensor):
    """A tensor that says it is on CUDA; for torch's C++ it is on "meta", which needs neither driver nor streams."""

    @staticmethod
    def __new__(cls, held: Tensor):
        return Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )

    def __init__(self, held: Tensor):
        self.held = held

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    is_cpu = property(lambda self: False)

    # Written in C++ and by device: these must go through an operation to be seen.
    def tolist(self):
        return self.cpu().tolist()

    def cpu(self):
        return self.to("cpu")

    def cuda(self, *_, **__):
        return self

    def new_tensor(self, data, dtype=None):
        return torch.tensor(data, dtype=dtype, device=self.device)

    def numpy(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __repr__(self):
        return f"Pretended({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func}: a pretended tensor outside of its PretendDevice")


class _OnMeta(TorchFunctionMode):
    """Asks for "meta" wherever CUDA is asked for, before C++ looks for a driver."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        if func is Tensor.cuda:
            return args[0].to(META)
        if func in (torch.tensor, torch.as_tensor) and _on_device(kwargs.get("device")):
            # Made on the CPU and copied, as torch does it, but by an operation that can be seen.
            kwargs = {name: value for name, value in kwargs.items() if name != "device"}
            return (func(*args, **kwargs) if not isinstance(args[0], Pretended) else args[0]).to(
                META
            )
        return func(
            *(META if _on_device(a) else a for a in args),
            **{name: META if _on_device(value) else value for name, value in kwargs.items()},
        )


def _on_device(value: object) -> bool:
    """Whether this is what CUDA is called: by us, or by torch's C++ of a pretended tensor."""
    return (isinstance(value, str) and value.startswith("cuda")) or (
        isinstance(value, torch.device) and value.type in ("cuda", "meta")
    )


@contextmanager
def _again(mode: TorchDispatchMode):
    TorchDispatchMode.__enter__(mode)
    try:
        yield
    finally:
        TorchDispatchMode.__exit__(mode, None, None, None)


class PretendDevice(TorchDispatchMode):
    """Enter it to have a pretended CUDA.

    Attributes:
        waits: how often the host had to wait for the device, by reason.
        uploads: copies to the device that are not waited for.
    """

    def __init__(self):
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.uploads = 0

    def __enter__(self):
        self._on_meta, self._engine = _OnMeta(), torch.autograd._engine_run_backward
        self._on_meta.__enter__()
        torch.autograd._engine_run_backward = self._run_backward
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        torch.autograd._engine_run_backward = self._engine
        self._on_meta.__exit__(*error)

    def _run_backward(self, *args, **kwargs):
        with (
            _OnMeta()
        ):  # torch leaves it for what it was asked for itself, which is all of the backward pass
            return self._engine(*args, **kwargs)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        packet = func.overloadpacket
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        here = [t for t in tensors if isinstance(t, Pretended)]
        asked = kwargs.get("device")
        if not here and not _on_device(asked):
            return func(*args, **kwargs)
        if here and packet not in COPIES:
            # In inference mode torch takes nothing apart itself, and the parts are what is to be seen.
            with torch._C.DisableTorchFunction(), _again(self):
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        target = CUDA if asked is None or _on_device(asked) else torch.device(asked)
        if packet in COPIES:
            target = self._count_copy(packet, args, kwargs, target)
        else:
            self._refuse(func, tensors, here, kwargs)
            self._count(packet, args, kwargs)
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        held = [
            tree_map(lambda t: t.held if isinstance(t, Pretended) else t, a) for a in (args, kwargs)
        ]
        out = func(*held[0], **held[1])
        if target.type == "cpu":
            return out
        # What was written to is itself again: autograd counts its versions.
        written = {id(t.held): t for t in here}
        wrap = lambda t: written[id(t)] if id(t) in written else Pretended(t)  # noqa: E731
        return tree_map(lambda t: wrap(t) if isinstance(t, Tensor) else t, out)

    def _refuse(self, func, tensors: list[Tensor], here: list[Tensor], kwargs: dict) -> None:
        """Raise where CUDA does."""
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != "cuda":
            raise RuntimeError(
                f"{func}: expected a 'cuda' device type for generator but found 'cpu'"
            )
        elementwise = torch.Tag.pointwise in func.tags
        for other in tensors:
            if isinstance(other, Pretended) or (
                func.overloadpacket in INDEXING and tensors[0] is not other
            ):
                continue
            if here and not (elementwise and other.ndim == 0):
                raise RuntimeError(
                    f"{func}: expected all tensors on the same device, found cuda:0 and cpu"
                )

    def _count_copy(self, packet, args: tuple, kwargs: dict, target: torch.device) -> torch.device:
        """Returns where the result is."""
        to, source = args[:2] if packet is ATEN.copy_ else (None, args[0])
        if to is not None:
            target = to.device
        if source.device.type == target.type:
            return target
        blocking = not (
            kwargs.get("non_blocking") or (packet is ATEN.copy_ and len(args) > 2 and args[2])
        )
        if target.type == "cpu":
            self.waits["download"] += 1
        elif blocking:
            self.waits["blocking upload"] += 1
        else:
            self.uploads += 1
        return target

    def _count(self, packet, args: tuple, kwargs: dict) -> None:
        if packet in WAITS:
            self.waits[packet.__name__] += 1
        if packet is ATEN.repeat_interleave and kwargs.get("output_size") is None:
            self.waits["repeat_interleave"] += 1
        if packet in INDEXING:
            indices = [i for i in args[1] if i is not None]
            # A mask to which one value is written is filled, and nobody counts what is true in it.
            filled = packet is not ATEN.index and args[2].numel() == 1
            if not filled:
                self.waits["mask"] += sum(i.dtype in (torch.bool, torch.uint8) for i in indices)
            self.waits["blocking upload"] += sum(not isinstance(i, Pretended) for i in indices)
