"""Oriented networks: which side of a surface is outside, and where that is learned from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from local_grids import LocalGrids
from networks import small_network
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from sparsefeat.checkpoint import from_pretrained, save_checkpoint
from sparsefeat.data.fragments import directions, load_viewpoint
from sparsefeat.errors import InputWarning
from sparsefeat.evaluate.keypoints import FragmentDescriber
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extract.surfaces import surface_points, vertex_features
from sparsefeat.mesh.normals import outer_normals
from sparsefeat.models import create_model
from sparsefeat.models.levels import Level
from sparsefeat.models.pairs import pair_factors, pair_products
from sparsefeat.models.voxel_cloud import voxelize
from sparsefeat.pretrain.config import DataConfig, ModelConfig, PretrainConfig
from sparsefeat.pretrain.loop import pretrain
from sparsefeat.receptive_field.soft import SoftNetwork
from sparsefeat.sparse.weighted import Pairs


def network(oriented: bool = True, **options) -> torch.nn.Module:
    shape = {"out_channels": 8, "conv1_kernel_size": 5}
    return small_network(**shape | {"kernels": "pair", "oriented": oriented} | options)


def ball(count: int = 1500, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of an ellipsoid, one per voxel of edge 1, and its outer normals. Shape: (V, 3) each, float64"""
    generator = torch.Generator().manual_seed(seed)
    normals = F.normalize(torch.randn(count, 3, dtype=torch.float64, generator=generator))
    half = torch.tensor([7.0, 5.0, 4.0], dtype=torch.float64)
    points = normals * half
    _, rows = np.unique(points.floor().numpy(), axis=0, return_index=True)
    return points[rows], F.normalize(points / half.square())[rows]


def features(model, points, normals) -> torch.Tensor:
    model = model.double()
    cloud = voxelize(points, 1.0, normals=normals)
    return cloud.read_off(model(model.inputs(cloud)).features)


def icosphere() -> tuple[np.ndarray, np.ndarray]:
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.creation.icosphere(subdivisions=3)
    return np.array(mesh.vertices) * (1, 0.7, 0.5), np.array(mesh.faces)


def test_a_turn_or_a_reflection_of_points_and_normals_changes_nothing():
    model, (points, normals) = network(), ball()
    expected = features(model, points, normals)
    for turn in (
        torch.eye(3)[[1, 2, 0]],
        torch.diag(torch.tensor([1.0, -1.0, -1.0])),
        -torch.eye(3),
    ):
        turn = turn.double()
        torch.testing.assert_close(
            features(model, points @ turn.T, normals @ turn.T), expected, atol=1e-9, rtol=0
        )


def test_a_chiral_function_changes_its_sign_under_reflection_and_nothing_else_does():
    generator = torch.Generator().manual_seed(3)
    count, pairs = 30, 200
    position, normal = (
        torch.randn(3, count, dtype=torch.float64, generator=generator) for _ in range(2)
    )
    normal, weight = F.normalize(normal, dim=0), torch.ones(count, dtype=torch.float64)
    rows, targets = torch.randint(count, (2, pairs), generator=generator)
    targets = targets.sort().values

    def functions(turn: torch.Tensor) -> torch.Tensor:
        moved = turn @ normal
        x, y, z = moved
        surface = torch.stack([x * x, y * y, z * z, x * y, x * z, y * z])
        level = Level(turn @ position, surface, weight, weight, moved, torch.zeros(count, 0))
        return torch.stack(
            pair_factors(Pairs(rows, targets, targets, 0, count), level, level, 1.0, 2, chiral=True)
        )

    still = functions(torch.eye(3, dtype=torch.float64))
    assert still.shape[0] == 7 and still[6].abs().max() > 0.1
    assert [p for p in pair_products(2, chiral=True) if 6 in p] == [(0, 6), (1, 6)]
    rotation = torch.from_numpy(Rotation.random(random_state=1).as_matrix())
    torch.testing.assert_close(functions(rotation), still, atol=1e-9, rtol=0)
    mirrored = functions(torch.diag(torch.tensor([-1.0, 1, 1], dtype=torch.float64)) @ rotation)
    torch.testing.assert_close(mirrored[:6], still[:6], atol=1e-9, rtol=0)
    torch.testing.assert_close(mirrored[6], -still[6], atol=1e-9, rtol=0)


def test_a_chiral_network_does_not_mind_turns_but_reflections():
    model, (points, normals) = network(chiral=True), ball()
    # Bent out of symmetry: an ellipsoid is its own mirror image.
    points = points + 0.3 * (points.roll(1, 1) / 4).sin()
    _, rows = np.unique(points.floor().numpy(), axis=0, return_index=True)
    points, normals = points[rows], normals[rows]
    expected = features(model, points, normals)
    turn = torch.eye(3)[[1, 2, 0]].double()
    torch.testing.assert_close(
        features(model, points @ turn.T, normals @ turn.T), expected, atol=1e-9, rtol=0
    )
    assert (
        features(model, -points, -normals) - expected
    ).abs().mean() > 1e-3 * expected.abs().mean()


def test_a_ball_is_not_a_hollow_to_a_network_of_oriented_networks():
    points, normals = ball()
    outside, inside = features(network(), points, normals), features(network(), points, -normals)
    unknown = features(network(), points, None)
    for one, other in ((outside, inside), (outside, unknown), (inside, unknown)):
        assert (one - other).abs().mean() > 0.01 * one.abs().mean()


def test_orientation_has_a_checkpoint_like_any_option(tmp_path):
    model = network()
    save_checkpoint(tmp_path / "a.safetensors", model, 0.05)
    again = from_pretrained(tmp_path / "a.safetensors")
    points, normals = ball()
    assert again.config["oriented"] is True
    torch.testing.assert_close(features(again, points, normals), features(model, points, normals))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kernels": "grid"}, "oriented needs kernels 'pair'"),
        ({"in_channels": 3}, "take 6 input channels"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create_model(
            "ResUNetBN2C", **({"in_channels": 6, "kernels": "pair", "oriented": True} | options)
        )


def test_an_extractor_takes_normals_or_a_viewpoint():
    extractor = FeatureExtractor(network(), voxel_size=1.0)
    points, normals = (part.numpy() for part in ball())
    unknown, told = (extractor(points, normals=n) for n in (0 * normals, 5 * normals))
    assert not np.allclose(unknown, told, atol=1e-3)
    # From far away all of a cap is seen from the same direction, of whatever length.
    cap = points[points[:, 2] > 2]
    viewpoint = (0.0, 0.0, 1e7)
    seen = extractor(cap, viewpoint=viewpoint)
    np.testing.assert_allclose(
        seen, extractor(cap, normals=np.tile([0, 0, 2.0], (len(cap), 1))), atol=1e-4
    )
    # Of a shape that is known to be one, the outer side is found.
    with pytest.warns(UserWarning, match="estimated"):
        found = extractor(points, closed=True)
    inside = extractor(points, normals=-normals)
    assert np.abs(found - told).mean() < 0.5 * np.abs(found - inside).mean()


def test_a_viewpoint_from_which_little_can_have_been_seen_is_not_used():
    axis = np.arange(0, 30, 0.7)
    floor = np.stack([*np.meshgrid(axis, axis), np.zeros((len(axis),) * 2)], -1).reshape(-1, 3)
    wall = floor[:, [2, 0, 1]]
    points = np.concatenate([floor, wall]) + [0.3, 0.3, 0.3]
    extractor = FeatureExtractor(network(), voxel_size=1.0)
    right = extractor(points, viewpoint=(20, 15, 20))
    with pytest.warns(
        UserWarning, match=r"viewpoint -20 15 5 can have seen .* the side .* estimated"
    ):
        wrong = extractor(points, viewpoint=(-20, 15, 5))
    with pytest.warns(UserWarning, match="neither viewpoint nor normals"):
        np.testing.assert_array_equal(wrong, extractor(points))
    insisted = extractor(points, normals=np.array([-20, 15, 5]) - points)
    assert np.abs(wrong - right).mean() < 0.5 * np.abs(insisted - right).mean()


def test_averaged_poses_take_the_normals_along():
    extractor = FeatureExtractor(network(normalize_feature=True), voxel_size=1.0)
    points, normals = (part.numpy() for part in ball())
    one, several = extractor(points, normals=normals), extractor(points, normals=normals, views=4)
    wrong = extractor(points, normals=-normals)
    assert (
        np.linalg.norm(one - several, axis=1).mean()
        < 0.5 * np.linalg.norm(one - wrong, axis=1).mean()
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"normals": np.ones((3, 3)), "viewpoint": (0, 0, 0)}, "at most one"),
        ({"normals": np.ones((2, 3))}, r"normals of shape \(2, 3\)"),
        ({"normals": np.full((3, 3), np.nan)}, "finite"),
        ({"viewpoint": (0, 0)}, "three finite numbers"),
        ({"viewpoint": "abc"}, "three finite numbers"),
    ],
)
def test_normals_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FeatureExtractor(network(), 1.0)(np.eye(3), **options)


def test_unoriented_networks_take_no_notice():
    points, normals = (part.numpy() for part in ball())
    extractor = FeatureExtractor(network(oriented=False), 1.0)
    np.testing.assert_array_equal(extractor(points), extractor(points, normals=normals))


def test_unoriented_networks_do_not_ask_the_file(tmp_path):
    points = ball()[0].numpy()
    np.savez(tmp_path / "a.npz", pcd=points, viewpoint=np.eye(4))
    extractor = FeatureExtractor(network(oriented=False), 1.0)
    np.testing.assert_array_equal(extractor(tmp_path / "a.npz"), extractor(points))


def test_the_sensor_of_a_fragment_is_said_by_its_file_or_its_name(tmp_path):
    np.savez(tmp_path / "a.npz", pcd=np.eye(3), viewpoint=np.float32([1, 2, 3]))
    np.savez(tmp_path / "b.npz", pcd=np.eye(3))
    np.savez(tmp_path / "c.npz", pcd=np.eye(3), viewpoint=np.float32([1, 2]))
    assert load_viewpoint(tmp_path / "a.npz").tolist() == [1, 2, 3]
    assert load_viewpoint(tmp_path / "b.npz") is None
    assert load_viewpoint("scene/cloud_bin_7.ply").tolist() == [0, 0, 0]
    assert load_viewpoint("scene/scan.ply") is None
    with pytest.raises(ValueError, match=r"c\.npz: viewpoint .* three finite numbers"):
        load_viewpoint(tmp_path / "c.npz")


def test_directions_are_unit_vectors_to_the_sensor_or_zeros():
    points = np.array([[0.0, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(
        directions(points, np.array([0, 0, 2.0])), [[0, 0, 1], [-(5**-0.5), 0, 2 * 5**-0.5]]
    )
    assert not directions(points, None).any()


def test_descriptors_are_told_where_the_sensor_is_also_when_a_fragment_is_turned(tmp_path):
    points, viewpoint = np.random.default_rng(0).normal(size=(50, 3)), np.array([0.5, 1.0, 2.0])
    np.savez(tmp_path / "a.npz", pcd=points, viewpoint=viewpoint)
    np.savez(tmp_path / "b.npz", pcd=points)
    given = []

    def describe(points, viewpoint):
        given.append((points, viewpoint))
        return points

    for rotate in (False, True):
        fragment = FragmentDescriber(describe, 1e-3, None, rotate=rotate)("s", tmp_path / "a.npz")
        seen, sensor = given.pop()
        # The points stay where they are, so that they still lie in the voxels that they were thinned by.
        np.testing.assert_array_equal(seen, fragment.points)
        np.testing.assert_allclose(seen @ fragment.rotation[:3, :3], points, atol=1e-12)
        np.testing.assert_allclose(sensor @ fragment.rotation[:3, :3], viewpoint, atol=1e-12)
    FragmentDescriber(describe, 1e-3, None)("s", tmp_path / "b.npz")
    assert given.pop()[1] is None


def test_normals_of_a_closed_mesh_point_outwards_however_it_is_wound():
    vertices, faces = icosphere()
    for wound in (faces, faces[:, ::-1]):
        points, normals = surface_points(vertices, wound, 0.1)
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
        assert ((points * normals).sum(1) > 0).all()
    sign, _ = outer_normals(vertices, faces[:, ::-1])
    assert sign == -outer_normals(vertices, faces)[0]


def test_features_of_a_mesh_do_not_depend_on_its_winding_or_its_pose():
    vertices, faces = icosphere()
    extractor = FeatureExtractor(network(), voxel_size=0.1)
    expected = vertex_features(extractor, vertices, faces)
    spread = np.abs(expected - expected.mean(0)).mean()
    turn = Rotation.from_euler("x", 90, degrees=True).as_matrix()
    for given, wound in ((vertices, faces[:, ::-1]), (vertices @ turn.T, faces)):
        # Not to the last digit: samples lie elsewhere in the triangles.
        assert np.abs(vertex_features(extractor, given, wound) - expected).mean() < 0.3 * spread


@pytest.mark.parametrize("kind", [SoftNetwork, LocalGrids])
def test_the_derivative_by_the_voxel_size_sees_the_normals(kind):
    soft = kind(network().double())
    points, normals = ball(400)
    queries = points[::60]

    def loss(v, normals=normals):
        return (
            soft(points, torch.as_tensor(v, dtype=torch.float64), queries, normals).square().mean()
        )

    v = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    loss(v).backward()
    step = 1e-4
    expected = (loss(1.7 + step) - loss(1.7 - step)) / (2 * step)
    assert float(v.grad) == pytest.approx(float(expected.detach()), rel=0.05)
    assert float(loss(1.7).detach()) != pytest.approx(float(loss(1.7, -normals).detach()), rel=1e-3)


def test_a_file_that_says_where_its_sensor_stood_is_asked(tmp_path):
    points = ball()[0].numpy()
    np.savez(tmp_path / "a.npz", pcd=points, viewpoint=np.array([0.0, 0, 30]))
    np.savez(tmp_path / "b.npz", pcd=points)
    extractor = FeatureExtractor(network(), 1.0)
    told = extractor(points, viewpoint=(0, 0, 30))
    np.testing.assert_array_equal(extractor(tmp_path / "a.npz"), told)
    np.testing.assert_array_equal(extractor(tmp_path / "b.npz"), extractor(points))
    np.testing.assert_array_equal(extractor(tmp_path / "b.npz", viewpoint=(0, 0, 30)), told)


def test_pretraining_of_oriented_networks_says_where_sides_are_estimated(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(2):
        np.savez(tmp_path / f"a@seq-01_{k:03d}.npz", pcd=rng.random((300, 3)) * (1, 1, 0.01))
    (tmp_path / "a@seq-01-0.30.txt").write_text("a@seq-01_000.npz a@seq-01_001.npz 0.5\n")
    (tmp_path / "train_a.txt").write_text("a\n")
    config = PretrainConfig(
        data=DataConfig(root=str(tmp_path), validation_pairs=0),
        model=ModelConfig(kernels="pair", oriented=True),
        steps=1, epochs=None, batch_size=1, voxel_size=0.1, pictures=False,
    )  # fmt: skip
    with pytest.warns(InputWarning, match="fragments do not say where their sensor stood"):
        pretrain(config, tmp_path / "run")
    assert (tmp_path / "run" / "last.safetensors").is_file()
