"""DiffusionNet: its function, its invariances, and the published weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch
import trimesh
from surfaces import body, sphere

from sparsefeat.heads import (
    DiffusionNet,
    HeadTraining,
    laplace_basis,
    load_diffusionnet,
    predict,
    train,
)
from sparsefeat.heads.diffusion import LearnedDiffusion
from sparsefeat.mesh.laplacian import _cotangent_laplacian


@pytest.fixture(scope="module")
def egg():
    vertices, faces = body()
    return vertices, faces, laplace_basis(vertices, faces, k=50, kind="cotangent")


def small(**options) -> DiffusionNet:
    return DiffusionNet(3, 4, width=8, blocks=2, **options).double().eval()


def with_times(net: DiffusionNet, low: float = 0.05) -> DiffusionNet:
    """Times as after training; they start at zero."""
    with torch.no_grad():
        for i in range(net.blocks):
            getattr(net, f"block_{i}").diffusion.diffusion_time.copy_(torch.linspace(low, 0.5, 8))
    return net


def test_diffusion_is_the_heat_equation():
    vertices, faces = sphere(2)
    basis = laplace_basis(vertices, faces, k=len(vertices), kind="cotangent")
    stiffness, mass = _cotangent_laplacian(vertices, faces)
    start = np.random.default_rng(0).standard_normal((len(vertices), 2))
    layer = LearnedDiffusion(2).double().eval()
    with torch.no_grad():
        layer.diffusion_time.copy_(torch.tensor([0.01, 0.3]))
    found = layer(torch.from_numpy(start), basis).detach().numpy()
    generator = stiffness.toarray() / mass[:, None]
    for channel, time in enumerate((0.01, 0.3)):
        expected = scipy.linalg.expm(-time * generator) @ start[:, channel]
        np.testing.assert_allclose(found[:, channel], expected, atol=1e-6)


def test_one_block_is_its_published_formula(egg):
    vertices, _, basis = egg
    net = with_times(DiffusionNet(3, 4, width=8, blocks=1).double().eval())
    weights = {key: value.numpy() for key, value in net.state_dict().items()}
    phi, mass, values = (getattr(basis, n).numpy() for n in ("eigenvectors", "mass", "eigenvalues"))
    grad = basis.gradient_x.to_dense().numpy() + 1j * basis.gradient_y.to_dense().numpy()
    x = vertices @ weights["first_lin.weight"].T + weights["first_lin.bias"]
    spectrum = phi.T @ (mass[:, None] * x)
    diffused = phi @ (
        np.exp(-np.outer(values, weights["block_0.diffusion.diffusion_time"])) * spectrum
    )
    z = grad @ diffused
    real, imaginary = (
        weights[f"block_0.gradient_features.A_{part}.weight"] for part in ("re", "im")
    )
    inner = np.tanh((z.conj() * (z @ (real + 1j * imaginary).T)).real)
    y = np.concatenate([x, diffused, inner], 1)
    for layer in range(3):
        name = f"block_0.mlp.miniMLP_mlp_layer_{layer:03d}"
        y = y @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        y = np.maximum(y, 0) if layer < 2 else y
    expected = (x + y) @ weights["last_lin.weight"].T + weights["last_lin.bias"]
    found = net(torch.from_numpy(vertices), basis).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_the_choice_of_tangent_axes_does_not_matter(egg):
    vertices, _, basis = egg
    generator = torch.Generator().manual_seed(0)
    angle = 6.28 * torch.rand(len(vertices), 1, dtype=torch.float64, generator=generator)
    x, y = basis.gradient_x.to_dense(), basis.gradient_y.to_dense()
    turned = dataclasses.replace(
        basis,
        gradient_x=angle.cos() * x - angle.sin() * y,
        gradient_y=angle.sin() * x + angle.cos() * y,
    )
    net, features = with_times(small()), torch.from_numpy(vertices)
    torch.testing.assert_close(net(features, basis), net(features, turned))


def test_without_rotations_the_side_of_the_normals_does_not_matter(egg):
    vertices, _, basis = egg
    flipped = dataclasses.replace(basis, gradient_y=-basis.gradient_y)
    features = torch.from_numpy(vertices)
    for rotations in (False, True):
        net = with_times(small(rotations=rotations))
        same = torch.allclose(net(features, basis), net(features, flipped))
        assert same != rotations


def test_a_symmetric_shape_in_any_pose_gets_the_same_output(egg):
    vertices, faces, basis = egg
    rotation = trimesh.transformations.random_rotation_matrix(np.array([0.9, 0.2, 0.5]))[:3, :3]
    turned = laplace_basis(vertices @ rotation.T, faces, k=50, kind="cotangent")
    net, features = with_times(small()), torch.from_numpy(vertices)
    torch.testing.assert_close(net(features, basis), net(features, turned), atol=1e-6, rtol=1e-6)


def test_outputs_at_edges_and_faces_are_means_of_their_corners(egg):
    vertices, faces, basis = egg
    features, corners = torch.from_numpy(vertices), torch.from_numpy(faces)
    at_vertices = with_times(small())(features, basis)
    at_faces = with_times(small(outputs_at="faces"))(features, basis, corners)
    torch.testing.assert_close(at_faces, at_vertices[corners].mean(1))
    at_edges = with_times(small(outputs_at="edges"))(features, basis, corners[:, :2])
    torch.testing.assert_close(
        at_edges, (at_vertices[corners[:, 0]] + at_vertices[corners[:, 1]]) / 2
    )
    whole = with_times(small(outputs_at="global_mean"))(features, basis)
    torch.testing.assert_close(whole, (basis.mass[:, None] * at_vertices).sum(0) / basis.area)


def test_lists_of_shapes_give_lists(egg):
    vertices, _, basis = egg
    other_vertices, other_faces = sphere(1)
    other = laplace_basis(other_vertices, other_faces, k=20)
    net = small()
    features = [torch.from_numpy(vertices), torch.from_numpy(other_vertices)]
    found = net(features, [basis, other])
    assert torch.equal(found[0], net(features[0], basis)) and torch.equal(
        found[1], net(features[1], other)
    )


def test_gradients_are_those_of_the_function():
    vertices, faces = sphere(0)
    basis = laplace_basis(vertices * [1, 1.3, 0.8], faces, k=8)
    net = DiffusionNet(2, 2, width=3, blocks=1, hidden=(4,), dropout=0.0).double()
    with torch.no_grad():
        net.block_0.diffusion.diffusion_time.copy_(torch.tensor([0.1, 0.3, 0.6]))
    names = list(dict(net.named_parameters()))
    features = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def function(features, *parameters):
        return torch.func.functional_call(
            net, dict(zip(names, parameters, strict=True)), (features, basis)
        )

    parameters = [p.detach().clone().requires_grad_() for p in net.parameters()]
    assert torch.autograd.gradcheck(function, (features.requires_grad_(), *parameters))


def test_times_leave_zero_and_never_pass_below_it(egg):
    vertices, _, basis = egg
    net = small()
    net(torch.from_numpy(vertices), basis).square().sum().backward()
    assert net.block_0.diffusion.diffusion_time.grad.abs().max() > 0, "a time at zero still learns"
    with torch.no_grad():
        net.block_0.diffusion.diffusion_time.fill_(-3.0)
    net(torch.from_numpy(vertices), basis)
    assert (net.block_0.diffusion.diffusion_time == -3).all(), "evaluation changes no parameter"
    net.train()(torch.from_numpy(vertices), basis)
    assert (net.block_0.diffusion.diffusion_time > 0).all()


def test_float32_is_near_float64(egg):
    vertices, _, basis = egg
    net, features = with_times(small()), torch.from_numpy(vertices)
    expected = net(features, basis)
    found = net.float()(features.float(), basis.to(dtype=torch.float32))
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_what_the_cpu_gives(egg):
    vertices, _, basis = egg
    net, features = with_times(small()), torch.from_numpy(vertices)
    expected = net(features, basis)
    found = net.cuda()(features.cuda(), basis.to("cuda"))
    torch.testing.assert_close(found.cpu(), expected)


def test_it_learns_to_tell_parts(egg):
    vertices, _, basis = egg
    basis = basis.to(dtype=torch.float32)
    features = torch.from_numpy(vertices).float()
    labels = (features[:, 1] > 0.3).long()
    net = DiffusionNet(3, 2, width=8, blocks=1)
    train(net, [(features, basis)], [labels], HeadTraining(60, 1e-2))
    assert (predict(net, [(features, basis)])[0] == labels.numpy()).mean() > 0.9


def test_inputs_that_do_not_fit_are_refused(egg):
    vertices, faces, basis = egg
    features = torch.from_numpy(vertices)
    with pytest.raises(ValueError, match=r"expected features \(642, 3\)"):
        small()(features[:-1], basis)
    with pytest.raises(ValueError, match="use basis.to"):
        small()(features.float(), basis)
    with pytest.raises(ValueError, match=r"faces need \(M, 3\), got None"):
        small(outputs_at="faces")(features, basis)
    with pytest.raises(ValueError, match="there are vertices, edges, faces, global_mean"):
        small(outputs_at="corners")


def test_weights_are_saved_and_read_by_their_published_names(tmp_path, egg):
    vertices, _, basis = egg
    net = with_times(DiffusionNet(3, 4, width=8, blocks=2, hidden=(5, 6, 7)).eval())
    features, basis = torch.from_numpy(vertices).float(), basis.to(dtype=torch.float32)
    for name, content in (
        ("alone", net.state_dict()),
        ("within", {f"feature_extractor.{k}": v for k, v in net.state_dict().items()}),
        ("nested", {"epoch": 3, "networks": {"feature_extractor": net.state_dict()}}),
    ):
        torch.save(content, tmp_path / f"{name}.pth")
        read = load_diffusionnet(tmp_path / f"{name}.pth")
        assert torch.equal(read(features, basis), net(features, basis))


def test_files_that_are_no_diffusionnet_are_refused(tmp_path):
    torch.save({"conv.weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: expected one DiffusionNet, found 0"):
        load_diffusionnet(tmp_path / "other.pth")
    state = DiffusionNet(3, 4, width=8, blocks=2).state_dict()
    state["block_1.mlp.miniMLP_mlp_layer_001.bias"] = torch.ones(5)
    torch.save(state, tmp_path / "damaged.pth")
    with pytest.raises(
        ValueError, match=r"damaged\.pth: .*block_1\.mlp\.miniMLP_mlp_layer_001\.bias"
    ):
        load_diffusionnet(tmp_path / "damaged.pth")
    del state["last_lin.weight"]
    torch.save(state, tmp_path / "partial.pth")
    with pytest.raises(ValueError, match="not a DiffusionNet"):
        load_diffusionnet(tmp_path / "partial.pth")


@pytest.mark.parametrize(
    ("file", "channels", "outputs"),
    [
        ("diffusionnet_human_seg_xyz_4x128.pth", 3, 8),
        ("diffusionnet_fmap_faust_xyz.pth", 3, 128),
        ("ulrssm_faust_scape.pth", 128, 256),
    ],
)
def test_published_weights_are_read(dataset, egg, file, channels, outputs):
    net = load_diffusionnet(dataset("checkpoints") / file)
    vertices, _, basis = egg
    assert net.in_channels == channels and net.blocks == 4
    out = net(torch.ones(len(vertices), channels), basis.to(dtype=torch.float32))
    assert out.shape == (len(vertices), outputs) and bool(torch.isfinite(out).all())


@pytest.mark.slow
def test_the_published_segmentation_network_knows_the_parts_of_unseen_people(dataset):
    folder = dataset("faust") / "registrations"
    net = load_diffusionnet(
        dataset("checkpoints") / "diffusionnet_human_seg_xyz_4x128.pth", "faces"
    )
    parts = np.loadtxt(folder / "labels_human8.txt", dtype=int)
    mesh = trimesh.load(folder / "tr_reg_085.ply", process=False)
    vertices, faces = np.array(mesh.vertices), np.array(mesh.faces)
    vertices = vertices - vertices.mean(0)
    vertices /= np.linalg.norm(vertices, axis=1).max()
    basis = laplace_basis(vertices, faces).to(dtype=torch.float32)
    (found,) = predict(net, [(torch.from_numpy(vertices).float(), basis, torch.from_numpy(faces))])
    # Its eight classes are not the eight parts that we have labels for, but each should lie within one.
    counts = np.zeros((8, parts.max() + 1))
    np.add.at(counts, (found, parts[faces[:, 0]]), 1)
    assert counts.max(1).sum() / counts.sum() > 0.85
    assert (counts.sum(1) > 0.01 * counts.sum()).sum() == 8, "all eight classes are found"
