"""Creatures from a seed: closed surfaces, exact correspondence, labels that follow the body."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from sparsefeat.data.shapes import load_dataset
from sparsefeat.synthetic.creatures import FAMILIES, PART_NAMES, make_creature, make_creatures
from sparsefeat.synthetic.creatures.body import turn
from sparsefeat.synthetic.creatures.cones import Cones, body_field
from sparsefeat.synthetic.creatures.dataset import shared_triangulation
from sparsefeat.synthetic.creatures.families import landmarks, template
from sparsefeat.transfer.config import CreaturesConfig
from sparsefeat.transfer.creatures import _comparable, make_missing_creatures

# (family, two of its classes, a pose of each)
CASES = {
    "humanoid": (("human", "stand"), ("human", "sit")),
    "quadruped": (("dog", "walk"), ("giraffe", "look-back")),
    "hand": (("hand", "open"), ("hand", "fist")),
}


def seeds(k: int) -> tuple[np.random.SeedSequence, np.random.SeedSequence]:
    return np.random.SeedSequence([k, 1]), np.random.SeedSequence([k, 2])


def test_a_creature_does_not_change_the_seeds_that_it_is_made_from():
    individual, occasion = seeds(0)
    once, again = (
        make_creature("humanoid", "human", "stand", individual, occasion, 2500) for _ in range(2)
    )
    np.testing.assert_array_equal(once.vertices, again.vertices)


@pytest.mark.parametrize("count", [1, 3, 7, 12, 14, 28])
def test_shapes_of_a_family_share_as_many_triangulations_as_asked(count):
    assert {shared_triangulation(k, 2, count) for k in range(count)} == set(range(count))


@pytest.fixture(scope="module")
def pairs():
    """Two creatures of each family, of different bodies, poses and triangulations."""
    return {
        family: [
            make_creature(family, *case, *seeds(k), vertices=4000) for k, case in enumerate(cases)
        ]
        for family, cases in CASES.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_creature_is_one_closed_surface_that_faces_outwards(pairs, family):
    for creature in pairs[family]:
        faces = creature.faces
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        forward = {tuple(edge) for edge in edges.tolist()}
        assert len(forward) == len(edges)
        assert all((b, a) in forward for a, b in forward)
        # Euler's formula of a sphere; as every edge has two faces it also excludes a second component.
        assert len(creature.vertices) - len(edges) // 2 + len(faces) == 2
        a, b, c = (creature.vertices[faces[:, i]] for i in range(3))
        assert (np.cross(a, b) * c).sum() > 0
        assert np.linalg.norm(np.cross(b - a, c - a), axis=1).min() > 0
        assert creature.vertices[:, 2].min() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_no_two_creatures_are_triangulated_alike(pairs, family):
    first, second = pairs[family]
    assert len(first.vertices) != len(second.vertices)
    nearest, _ = cKDTree(first.template).query(second.template)
    assert np.median(nearest) > 0.1 * _spacing(first.template)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_landmark_is_the_same_point_of_the_template_on_all(pairs, family):
    places, _, _ = landmarks(family, 3000)
    for creature in pairs[family]:
        assert len(creature.landmarks) == len(creature.landmark_places) == len(places)
        apart = np.linalg.norm(creature.template[creature.landmarks] - places, axis=1)
        # The nearest vertex of a triangulation is at most about one edge away.
        assert np.median(apart) < 0.6 * _spacing(creature.template)
        assert np.percentile(apart, 99) < 1.3 * _spacing(creature.template)
        assert apart.max() < 3 * _spacing(creature.template)
        # And what is near on the template is near on the creature.
        moved = np.linalg.norm(
            creature.vertices[creature.landmarks] - creature.landmark_places, axis=1
        )
        assert np.percentile(moved, 99) < 3 * _spacing(creature.vertices)


def test_where_a_point_of_the_body_goes_does_not_depend_on_the_triangulation(pairs):
    """The same individual in the same pose, triangulated more finely: landmarks are in the same places."""
    coarse = pairs["hand"][0]
    fine = make_creature("hand", "hand", "open", *seeds(0), vertices=6000)
    assert len(fine.vertices) > 1.3 * len(coarse.vertices)
    offset = fine.landmark_places - coarse.landmark_places
    # Creatures stand on the ground and are centred, by their vertices.
    assert np.abs(offset - offset.mean(0)).max() < 1e-9
    # Vertices that are the image of nearly the same point of the template are nearly in the same place.
    surface = np.concatenate([fine.template, landmarks("hand", 3000)[0]])
    carried = np.concatenate([fine.vertices, fine.landmark_places])
    tree = cKDTree(surface)
    distance, rows = tree.query(coarse.template, 1)
    close = distance < 0.1 * _spacing(coarse.template)
    assert close.sum() > 30
    apart = np.linalg.norm(coarse.vertices[close] + offset.mean(0) - carried[rows[close]], axis=1)
    assert np.percentile(apart, 95) < 0.5 * _spacing(coarse.vertices)


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_follow_the_body_into_every_pose(pairs, family):
    first, second = pairs[family]
    assert set(first.parts) == set(second.parts)
    assert {PART_NAMES[part] for part in set(first.parts)} == set(template(family).body.parts)
    # Nearest vertices of landmarks at a border may lie on either side of it.
    assert np.mean(first.parts[first.landmarks] == second.parts[second.landmarks]) > 0.95


def test_the_person_stands_on_feet_and_carries_the_head_on_top(pairs):
    standing, other = pairs["humanoid"]
    sitting = make_creature("humanoid", "human", "sit", seeds(0)[0], seeds(1)[1], vertices=4000)

    def height(creature, part: str) -> float:
        return creature.vertices[creature.parts == PART_NAMES.index(part), 2].mean()

    parts = ("left foot", "left calf", "left thigh", "torso", "neck", "head")
    order = [height(standing, part) for part in parts]
    assert order == sorted(order)
    assert np.ptp(sitting.vertices[:, 2]) < 0.9 * np.ptp(standing.vertices[:, 2])
    # Another individual has another body.
    assert abs(np.ptp(sitting.vertices[:, 2]) - np.ptp(other.vertices[:, 2])) > 0.05


@pytest.mark.parametrize("family", ["humanoid", "quadruped"])
def test_left_and_right_are_mirror_images(family):
    """Without knowing the body's front from a mirror's, no feature can tell them apart."""
    surface = template(family)
    places, _, _ = landmarks(family, 3000)
    mirror = places * [-1, 1, 1]
    every = np.tile(np.arange(len(surface.body.cones)), (len(places), 1))
    value, _ = body_field(surface.body.cones, mirror, every)
    assert np.abs(value).max() < 1e-4
    names = np.array(surface.body.parts)
    swap = {"left": "right", "right": "left"}
    expected = [
        " ".join(swap.get(word, word) for word in name.split())
        for name in names[surface.parts(places)]
    ]
    assert np.mean(names[surface.parts(mirror)] == expected) > 0.99


def test_the_same_seed_gives_the_same_bits(pairs):
    again = make_creature("quadruped", "dog", "walk", *seeds(0), vertices=4000)
    dog = pairs["quadruped"][0]
    for name in ("vertices", "faces", "parts", "template", "landmarks", "landmark_places"):
        assert getattr(again, name).tobytes() == getattr(dog, name).tobytes()


def test_a_body_in_another_pose_is_the_same_body():
    """Cones are moved rigidly: no pose lengthens a limb."""
    body = template("humanoid").body
    posed = body.posed(
        {"left thigh": turn(x=-80), "chest": turn(x=20, z=10), "left calf": turn(x=90)}
    )
    assert np.array_equal(posed.length, body.cones.length)
    assert np.array_equal(posed.radius, body.cones.radius)
    assert np.allclose(posed.axes @ posed.axes.transpose(0, 2, 1), np.eye(3))
    moved = np.linalg.norm(posed.origin - body.cones.origin, axis=1) > 1e-12
    bones = {body.bones[bone] for bone in body.cone_bone[moved]}
    assert (
        "left foot" in bones
        and "head" in bones
        and "right foot" not in bones
        and "pelvis" not in bones
    )
    with pytest.raises(ValueError, match="no bone 'tail'"):
        body.posed({"tail": np.eye(3)})


def test_limbs_that_run_into_each_other_are_noticed():
    body = template("humanoid").body
    assert body.overlap(body.cones) == 0
    through = body.posed({"left upper arm": turn(y=80, z=-60), "left forearm": turn(y=90)})
    assert body.overlap(through) > 0.02


def test_the_distance_to_a_cone_is_that_to_its_balls():
    """A rounded cone is the union of all balls between its two: the nearest of them decides."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(5, 3, 3)))[0]
    radius = np.array([[0.3, 0.1], [0.1, 0.3], [0.2, 0.2], [0.5, 0.05], [0.05, 0.06]])
    length = np.array([1.0, 0.8, 0.5, 0.6, 1e-7])
    cones = Cones(rng.normal(size=(5, 3)), axes, length, radius, np.ones((5, 2)), np.full(5, 0.05))
    points = 1.5 * rng.normal(size=(300, 3))
    along = np.linspace(0, 1, 4001)
    for p in range(5):
        centres = cones.origin[p] + along[:, None] * length[p] * axes[p, 2]
        balls = radius[p, 0] + along * (radius[p, 1] - radius[p, 0])
        expected = (np.linalg.norm(points[:, None] - centres, axis=2) - balls).min(1)
        assert np.allclose(cones.distance(points)[:, p], expected, atol=2e-4)


def test_the_gradient_of_the_field_is_its_derivative():
    rng = np.random.default_rng(1)
    surface = template("quadruped")
    points = landmarks("quadruped", 3000)[0][::40] + 0.02 * rng.normal(size=3)
    near = np.tile(np.arange(len(surface.body.cones)), (len(points), 1))
    share = rng.uniform(0.1, 1, near.shape)
    _, gradient = body_field(surface.body.cones, points, near, share)
    step = 1e-6
    for axis in range(3):
        shift = step * np.eye(3)[axis]
        above, _ = body_field(surface.body.cones, points + shift, near, share)
        below, _ = body_field(surface.body.cones, points - shift, near, share)
        assert np.allclose((above - below) / (2 * step), gradient[:, axis], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "hands"
    return make_creatures(folder, 3, count=2, poses=1, families=["hand"], vertices=2600, workers=1)


def test_creatures_are_read_as_a_folder(written):
    hands = load_dataset("folder", written)
    assert hands.class_names == ("hand",) and hands.part_names == PART_NAMES
    assert len(hands.subset("train")) == len(hands.subset("test")) == 1
    train, test = (
        {shape.individual for shape in hands.subset(split)} for split in ("train", "test")
    )
    assert train.isdisjoint(test)
    first, last = hands.shapes[0].load(), hands.shapes[1].load()
    assert len(first.vertex_labels) == len(first.vertices)
    source, target = hands.corresponding(0, 1)
    agree = first.vertex_labels[source] == last.vertex_labels[target]
    assert len(source) > 2500 and agree.mean() > 0.95
    on_template = np.load(written / "hand" / "template" / f"{Path(hands.shapes[0].path).stem}.npy")
    assert on_template.shape == first.vertices.shape
    assert (written / "creatures.png").stat().st_size > 1000


def test_creatures_of_other_settings_are_not_taken_for_those_asked_for(written, tmp_path):
    asked = CreaturesConfig(seed=3, count=2, poses=1, families=["hand"], vertices=2600)
    assert not make_missing_creatures(asked, written)
    asked.count = 3
    with pytest.raises(
        ValueError, match="hands: holds creatures made with seed=3, count=2.*asks for .*count=3"
    ):
        make_missing_creatures(asked, written)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match="not creatures made here .settings.yaml: No such file"):
        make_missing_creatures(asked, tmp_path)
    (tmp_path / "settings.yaml").write_text("- a list")
    with pytest.raises(
        ValueError, match="settings.yaml: expected the settings of creatures, got list"
    ):
        make_missing_creatures(asked, tmp_path)
    with pytest.raises(ValueError, match="mine.txt: these are not creatures"):
        make_missing_creatures(asked, tmp_path / "mine.txt")


def test_creatures_are_made_where_nothing_is_and_recognised_afterwards(tmp_path):
    asked = CreaturesConfig(count=1, poses=1, families=["hand"], vertices=2500)
    # a folder that is there, and empty
    assert make_missing_creatures(asked, tmp_path) and (tmp_path / "hand").is_dir()
    assert not make_missing_creatures(asked, tmp_path)


def test_the_order_of_families_is_no_difference():
    named = [
        {"seed": 1, "families": order} for order in (["hand", "humanoid"], ["humanoid", "hand"])
    ]
    assert (
        _comparable(named[0])
        == _comparable(named[1])
        != _comparable({"seed": 1, "families": ["hand"]})
    )


def test_sides_can_be_merged(written):
    hands = load_dataset("folder", written, merge_left_right=True)
    assert "forearm" in hands.part_names and "left forearm" not in hands.part_names
    labels = hands.shapes[0].load().vertex_labels
    assert {hands.part_names[part] for part in set(labels)} >= {"thumb", "palm", "little finger"}


def test_the_number_of_workers_changes_no_byte(written, tmp_path):
    again = make_creatures(
        tmp_path / "again", 3, count=2, poses=1, families=["hand"], vertices=2600, workers=2
    )
    assert _digest(again) == _digest(written)


def test_nothing_is_left_of_an_interrupted_run(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_creatures(
            tmp_path / "c", 0, count=1, families=["hand"], vertices=2600, workers=1, progress=stop
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="something already"):
        make_creatures(tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "count 0, expected"),
        ({"vertices": 100}, "vertices 100, expected .* 2500"),
        ({"count": "2"}, "count '2', expected"),
        ({"triangulations": 1.5}, "triangulations 1.5"),
        ({"families": None}, "families: got .None., expected some of"),
        ({"families": []}, "families: got none"),
        ({"families": ["dragon"]}, "dragon.*humanoid, quadruped, hand"),
    ],
)
def test_wrong_numbers_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        make_creatures(tmp_path / "c", 0, **wrong)
    assert not (tmp_path / "c").exists()


def test_unknown_classes_and_poses_name_the_known_ones():
    with pytest.raises(ValueError, match="unknown class 'dog', expected one of human"):
        make_creature("humanoid", "dog", "stand", *seeds(0))
    for vertices in (0, -5, 3000.5):
        with pytest.raises(ValueError, match=f"vertices {vertices}, expected a whole number"):
            make_creature("hand", "hand", "fist", *seeds(0), vertices)
    with pytest.raises(ValueError, match="int 0, expected a numpy.random.SeedSequence"):
        make_creature("hand", "hand", "fist", 0, 1)
    with pytest.raises(ValueError, match="giraffe: unknown pose 'sit'"):
        make_creature("quadruped", "giraffe", "sit", *seeds(0))


def _spacing(points: np.ndarray) -> float:
    return float(np.median(cKDTree(points).query(points, 2)[0][:, 1]))


def _digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
