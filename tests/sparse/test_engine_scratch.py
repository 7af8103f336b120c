"""Memory that layers share: nothing that a layer returns lies in it, and it is bounded."""

import threading

import pytest
import torch
from torch._subclasses import FakeTensor, FakeTensorMode

from sparsefeat.sparse import SparseTensor, modules
from sparsefeat.sparse.arithmetic import scratch as module
from sparsefeat.sparse.arithmetic.scratch import scratch


@pytest.fixture(autouse=True)
def own_buffers(monkeypatch):
    monkeypatch.setattr(module, "_kept", threading.local())


@pytest.fixture(params=[True, False], ids=["in order", "in no order"])
def cloud(request):
    """400 voxels; layers put them into the order of their coordinates, unless they come in it."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randperm(1000, generator=generator)[:400]
    cells = cells.sort().values if request.param else cells
    spots = torch.stack([cells // 100, cells // 10 % 10, cells % 10], 1)
    coordinates = torch.nn.functional.pad(spots, (1, 0)).int()
    return SparseTensor(torch.randn(400, 8, generator=generator, dtype=torch.float64), coordinates)


def test_the_same_room_comes_back_for_the_same_purpose_only():
    like = torch.empty(0)
    first = scratch("a", like, (3, 4))
    assert first.shape == (3, 4) and first.dtype == torch.float32
    assert scratch("a", like, (6,)).data_ptr() == first.data_ptr()
    assert scratch("b", like, (3, 4)).data_ptr() != first.data_ptr()
    assert scratch("a", like, (2, 3), torch.float64).dtype == torch.float64


def test_large_rooms_are_not_kept():
    like = torch.empty(0, dtype=torch.uint8)
    assert scratch("a", like, (module.KEPT_BYTES + 1,)).shape == (module.KEPT_BYTES + 1,)
    assert not hasattr(module._kept, "a")


def test_threads_have_rooms_of_their_own():
    mine = scratch("a", torch.empty(0), (5,))
    theirs = []
    thread = threading.Thread(target=lambda: theirs.append(scratch("a", torch.empty(0), (5,))))
    thread.start()
    thread.join()
    assert theirs[0].data_ptr() != mine.data_ptr()


@pytest.mark.parametrize("kernel_size, stride", [(3, 1), (3, 2), (1, 1)])
def test_a_layer_leaves_the_results_of_the_layers_before_alone(cloud, kernel_size, stride):
    torch.manual_seed(0)
    layers = [
        modules.Convolution(8, 8, kernel_size, stride=stride, dimension=3).double()
        for _ in range(2)
    ]
    weight = torch.randn(8, dtype=torch.float64)

    def results(layer):
        features = cloud.F.detach().requires_grad_()
        out = layer(SparseTensor(features, manager=cloud.manager, key=cloud.key)).F
        return out.detach(), *torch.autograd.grad((out**2 @ weight).sum(), [features, layer.kernel])

    before = results(layers[0])
    copies = [t.clone() for t in before]
    results(layers[1])
    assert all(torch.equal(a, b) for a, b in zip(before, copies))


def test_rooms_made_in_inference_mode_serve_training(cloud):
    layer = modules.Convolution(8, 8, 3, dimension=3).double()
    with torch.inference_mode():
        expected = layer(cloud).F
    out = layer(cloud).F
    out.sum().backward()
    assert torch.equal(out, expected) and layer.kernel.grad is not None


def test_another_default_device_is_not_where_rooms_are(cloud):
    layer = modules.Convolution(8, 8, 3, dimension=3).double()
    expected = layer(cloud).F.detach()
    module._kept = threading.local()
    with torch.device("meta"):
        out = layer(cloud).F
    assert torch.equal(out, expected) and torch.equal(layer(cloud).F, expected)


def test_what_a_tracer_makes_is_not_kept():
    with FakeTensorMode():
        room = scratch("a", torch.empty(0), (3, 4))
    assert isinstance(room, FakeTensor) and room.shape == (3, 4)
    assert type(scratch("a", torch.empty(0), (3, 4))) is torch.Tensor
