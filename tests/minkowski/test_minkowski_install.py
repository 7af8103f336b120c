"""sparsefeat.minkowski.install(): what ``import MinkowskiEngine`` finds, and that nothing stays behind."""

from __future__ import annotations

import codecs
import collections
import importlib
import inspect
import sys
from types import ModuleType

import pytest
import torch

import sparsefeat.minkowski as ME

PUBLIC = """
    BroadcastMode CoordinateManager CoordinateMapKey CoordinateMapType CoordsManager GPUMemoryAllocatorType
    KernelGenerator KernelRegion MinkowskiAdaptiveLogSoftmaxWithLoss MinkowskiAlgorithm MinkowskiAlphaDropout
    MinkowskiAvgPooling MinkowskiBatchNorm MinkowskiBroadcast MinkowskiBroadcastAddition
    MinkowskiBroadcastConcatenation MinkowskiBroadcastFunction MinkowskiBroadcastMultiplication MinkowskiCELU
    MinkowskiChannelwiseConvolution MinkowskiConvolution MinkowskiConvolutionFunction
    MinkowskiConvolutionTranspose MinkowskiConvolutionTransposeFunction MinkowskiDirectMaxPoolingFunction
    MinkowskiDropout MinkowskiELU MinkowskiFunctional MinkowskiGELU MinkowskiGenerativeConvolutionTranspose
    MinkowskiGlobalAvgPooling MinkowskiGlobalMaxPooling MinkowskiGlobalPooling MinkowskiGlobalPoolingFunction
    MinkowskiGlobalSumPooling MinkowskiHardshrink MinkowskiHardsigmoid MinkowskiHardswish MinkowskiHardtanh
    MinkowskiInstanceNorm MinkowskiInstanceNormFunction MinkowskiInterpolation MinkowskiInterpolationFunction
    MinkowskiLeakyReLU MinkowskiLinear MinkowskiLocalPoolingFunction MinkowskiLocalPoolingTransposeFunction
    MinkowskiLogSigmoid MinkowskiLogSoftmax MinkowskiMaxPooling MinkowskiModuleBase MinkowskiNetwork
    MinkowskiOps MinkowskiPReLU MinkowskiPoolingTranspose MinkowskiPruning MinkowskiPruningFunction
    MinkowskiRReLU MinkowskiReLU MinkowskiReLU6 MinkowskiSELU MinkowskiSPMMAverageFunction
    MinkowskiSPMMFunction MinkowskiSiLU MinkowskiSigmoid MinkowskiSinusoidal MinkowskiSoftmax MinkowskiSoftmin
    MinkowskiSoftplus MinkowskiSoftshrink MinkowskiSoftsign MinkowskiStableInstanceNorm MinkowskiStackCat
    MinkowskiStackMean MinkowskiStackSum MinkowskiStackVar MinkowskiSumPooling MinkowskiSyncBatchNorm
    MinkowskiTanh MinkowskiTanhshrink MinkowskiThreshold MinkowskiToDenseTensor MinkowskiToFeature
    MinkowskiToSparseTensor MinkowskiUnion MinkowskiUnionFunction PoolingMode RegionType SparseTensor
    SparseTensorOperationMode SparseTensorQuantizationMode TensorField cat clear_global_coordinate_manager
    convert_region_type convert_to_int_tensor cuda_version cudart_version dense_coordinates
    get_gpu_memory_info get_kernel_volume global_coordinate_manager is_cuda_available mean modules
    print_diagnostics set_global_coordinate_manager set_gpu_allocator set_memory_manager_backend
    set_sparse_tensor_operation_mode sparse_tensor_operation_mode spmm sum to_sparse to_sparse_all utils var
""".split()
"""The names of the package MinkowskiEngine 0.5.4."""

SUBMODULES = {
    "MinkowskiBroadcast": "MinkowskiBroadcastBase MinkowskiBroadcast",
    "MinkowskiChannelwiseConvolution": "MinkowskiChannelwiseConvolution",
    "MinkowskiCommon": "convert_to_int_list convert_to_int_tensor MinkowskiModuleBase get_postfix "
    "get_minkowski_function",
    "MinkowskiConvolution": "MinkowskiConvolutionBase",
    "MinkowskiCoordinateManager": "CoordinateManager",
    "MinkowskiFunctional": "_wrap_tensor relu elu prelu leaky_relu dropout softmax log_softmax cross_entropy mse_loss",
    "MinkowskiInterpolation": "MinkowskiInterpolation",
    "MinkowskiKernelGenerator": "KernelGenerator KernelRegion get_kernel_volume",
    "MinkowskiNetwork": "MinkowskiNetwork",
    "MinkowskiNonlinearity": "MinkowskiNonlinearityBase MinkowskiReLU",
    "MinkowskiNormalization": "MinkowskiBatchNorm MinkowskiInstanceNorm",
    "MinkowskiOps": "cat _sum mean var to_sparse dense_coordinates MinkowskiLinear",
    "MinkowskiPooling": "MinkowskiPoolingBase MinkowskiAvgPooling",
    "MinkowskiPruning": "MinkowskiPruning",
    "MinkowskiSparseTensor": "SparseTensor",
    "MinkowskiTensor": "Tensor SparseTensorOperationMode COORDINATE_KEY_DIFFERENT_ERROR",
    "MinkowskiTensorField": "TensorField",
    "MinkowskiUnion": "MinkowskiUnion",
    "diagnostics": "print_diagnostics",
    "modules": "resnet_block senet_block",
    "modules.resnet_block": "BasicBlock Bottleneck",
    "modules.senet_block": "SELayer SEBasicBlock SEBottleneck",
    "sparse_matrix_functions": "spmm spmm_average",
    "utils": "sparse_quantize sparse_collate batched_coordinates SparseCollation kaiming_normal_ summary",
    "utils.collation": "batch_sparse_collate",
    "utils.coords": "get_coords_map",
    "utils.gradcheck": "gradcheck",
    "utils.init": "kaiming_normal_",
    "utils.quantization": "fnv_hash_vec ravel_hash_vec quantize quantize_label unique_coordinate_map",
    "utils.summary": "summary",
}

SIGNATURES = {
    "MinkowskiConvolution": "in_channels out_channels kernel_size=-1 stride=1 dilation=1 bias=False "
    "kernel_generator=None expand_coordinates=False convolution_mode=DEFAULT dimension=None",
    "MinkowskiGenerativeConvolutionTranspose": "in_channels out_channels kernel_size=-1 stride=1 dilation=1 "
    "bias=False kernel_generator=None convolution_mode=DEFAULT dimension=None",
    "MinkowskiAvgPooling": "kernel_size=-1 stride=1 dilation=1 kernel_generator=None dimension=None",
    "MinkowskiPoolingTranspose": "kernel_size stride dilation=1 kernel_generator=None "
    "expand_coordinates=False dimension=None",
    "KernelGenerator": "kernel_size=-1 stride=1 dilation=1 is_transpose=False region_type=HYPER_CUBE "
    "region_offsets=None expand_coordinates=False axis_types=None dimension=-1",
    "SparseTensor": "features=None coordinates=None tensor_stride=1 coordinate_map_key=None "
    "coordinate_manager=None quantization_mode=RANDOM_SUBSAMPLE allocator_type=None "
    "minkowski_algorithm=None requires_grad=None device=None",
    "TensorField": "features coordinates=None tensor_stride=1 coordinate_field_map_key=None "
    "coordinate_manager=None quantization_mode=UNWEIGHTED_AVERAGE allocator_type=None "
    "minkowski_algorithm=None requires_grad=None device=None",
    "utils.sparse_quantize": "coordinates features=None labels=None ignore_label=-100 return_index=False "
    "return_inverse=False return_maps_only=False quantization_size=None device=cpu",
}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name):
    assert getattr(ME, name) is not None


@pytest.mark.parametrize("name", SUBMODULES)
def test_every_submodule_has_its_names(name):
    module = importlib.import_module(f"sparsefeat.minkowski.{name}")
    assert all(hasattr(module, each) for each in SUBMODULES[name].split())


def test_functions_of_the_compiled_part_are_named_where_there_are_none():
    from sparsefeat.minkowski.common import get_minkowski_function

    with pytest.raises(
        ValueError, match="Function ConvolutionForwardCPU not available.*Minkowski.*Function"
    ):
        get_minkowski_function("ConvolutionForward", torch.zeros(1))


def test_a_name_that_is_not_there_is_named():
    with pytest.raises(AttributeError, match="no MinkowskiAvgUnpooling"):
        ME.MinkowskiAvgUnpooling  # noqa: B018
    with pytest.raises(NotImplementedError, match="CoordsManager"):
        ME.CoordsManager(D=3)
    assert ME.__version__ == "0.5.4"


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_have_the_engines_names_order_and_defaults(name):
    function = ME
    for part in name.split("."):
        function = getattr(function, part)
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            default = getattr(parameter.default, "name", parameter.default)
            given = default is not parameter.empty
            found.append(f"{parameter.name}={default}" if given else parameter.name)
    assert " ".join(found) == SIGNATURES[name]


# --- installation ---


def snapshot() -> tuple[dict, list, set]:
    return dict(sys.modules), list(sys.meta_path), set(vars(collections))


def has_codec() -> bool:
    try:
        codecs.lookup("future_fstrings")
    except LookupError:
        return False
    return True


def test_published_ways_of_importing():
    with ME.installed() as engine:
        import MinkowskiEngine
        import MinkowskiEngine.MinkowskiFunctional as MEF
        import MinkowskiEngine.MinkowskiOps as me
        from MinkowskiEngine import MinkowskiNetwork, SparseTensor
        from MinkowskiEngine.MinkowskiNonlinearity import MinkowskiReLU
        from MinkowskiEngine.MinkowskiSparseTensor import SparseTensor as same
        from MinkowskiEngine.modules.resnet_block import BasicBlock, Bottleneck
        from MinkowskiEngine.utils import batched_coordinates, sparse_quantize
        from MinkowskiEngineBackend._C import CoordinateMapKey
        from MinkowskiTensor import SparseTensorOperationMode
        from utils.gradcheck import gradcheck

        assert MinkowskiEngine is engine is ME
        assert MEF is ME.MinkowskiFunctional and me is ME.MinkowskiOps
        assert SparseTensor is same is ME.SparseTensor and MinkowskiNetwork is ME.MinkowskiNetwork
        assert MinkowskiReLU is ME.MinkowskiReLU and CoordinateMapKey is ME.CoordinateMapKey
        assert SparseTensorOperationMode is ME.SparseTensorOperationMode
        assert issubclass(BasicBlock, torch.nn.Module) and Bottleneck.expansion == 4
        assert sparse_quantize is ME.utils.sparse_quantize
        assert batched_coordinates is ME.utils.batched_coordinates
        assert gradcheck.__module__.startswith("sparsefeat.")
        for name in SUBMODULES:
            assert importlib.import_module(f"MinkowskiEngine.{name}") is not None


def test_uninstall_leaves_nothing_behind():
    before = snapshot()
    assert not has_codec()
    ME.install()
    assert ME.install() is ME and "MinkowskiEngine" in sys.modules and has_codec()
    assert all(hasattr(collections, name) for name in ("Sequence", "Iterable", "Mapping"))
    importlib.import_module("utils.gradcheck")
    ME.uninstall()
    ME.uninstall()
    assert snapshot() == before and not has_codec()


def test_a_real_engine_is_hidden_and_comes_back(monkeypatch):
    real = {
        name: ModuleType(name)
        for name in ("MinkowskiEngine", "MinkowskiEngine.utils", "MinkowskiOps")
    }
    for name, module in real.items():
        monkeypatch.setitem(sys.modules, name, module)
    with ME.installed():
        assert (
            sys.modules["MinkowskiEngine"] is ME and sys.modules["MinkowskiOps"] is ME.MinkowskiOps
        )
    assert all(sys.modules[name] is module for name, module in real.items())
    assert "MinkowskiEngine.modules" not in sys.modules


def test_other_packages_called_utils_are_found_first(tmp_path, monkeypatch):
    (tmp_path / "utils.py").write_text("mine = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    with ME.installed():
        assert importlib.import_module("utils").mine
    monkeypatch.delitem(sys.modules, "utils")


def test_installations_nest():
    with ME.installed():
        with ME.installed():
            pass
        assert sys.modules["MinkowskiEngine"] is ME
    assert sys.modules.get("MinkowskiEngine") is not ME


def test_an_exception_undoes_the_installation():
    before = snapshot()
    with pytest.raises(KeyError), ME.installed():
        raise KeyError("inside")
    assert snapshot() == before


PUBLISHED = """\
# -*- coding: future_fstrings -*-
import collections

import MinkowskiEngine as ME
import MinkowskiEngine.MinkowskiFunctional as MEF


class Net(ME.MinkowskiNetwork):
  NORMS = isinstance([], collections.Sequence)

  def __init__(self, D=3):
    ME.MinkowskiNetwork.__init__(self, D)
    self.conv = ME.MinkowskiConvolution(1, 4, kernel_size=3, stride=2, dimension=D)
    self.name = f'{type(self).__name__}{D}'

  def forward(self, x):
    return MEF.relu(self.conv(x))
"""


def test_a_published_file_runs_unmodified(tmp_path, monkeypatch):
    (tmp_path / "published_net.py").write_text(PUBLISHED)
    monkeypatch.syspath_prepend(tmp_path)
    with ME.installed():
        net = importlib.import_module("published_net").Net()
    monkeypatch.delitem(sys.modules, "published_net")
    x = ME.SparseTensor(
        torch.ones(2, 1), torch.tensor([[0, 0, 0, 0], [0, 1, 5, 2]], dtype=torch.int32)
    )
    y = net(x)
    assert net.name == "Net3" and net.NORMS
    assert y.tensor_stride == [2, 2, 2] and y.C.tolist() == [[0, 0, 0, 0], [0, 0, 4, 2]]
