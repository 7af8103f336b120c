"""Loaders of shapes: real folders where they are there, miniature copies of the layout for the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsefeat.data.shapes import ShapeDataset, dataset_names, load_dataset
from sparsefeat.errors import InputError

TETRAHEDRON = "OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"


def put(path: Path, text: str = TETRAHEDRON) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def lines(*numbers: int) -> str:
    return "".join(f"{number}\n" for number in numbers)


def remeshed(root: Path, names: list[str], folder: str = "off") -> Path:
    """Tetrahedra in the layout of the remeshed sets, each with landmarks 1 to 4 and files to be ignored."""
    for name in names:
        put(root / folder / f"{name}.off")
        put(root / "corres" / f"{name}.vts", lines(4, 2, 1, 1))
        put(root / "corres" / f"{name}.sym.vts", lines(9, 9, 9))
    put(root / "corres" / "sampleID.vts", lines(1))
    return root


def names(dataset: ShapeDataset, split: str) -> list[str]:
    return [shape.name for shape in dataset.subset(split)]


def test_every_loader_says_what_it_looked_for(tmp_path):
    put(tmp_path / "holiday.jpg", "")
    for name in dataset_names():
        with pytest.raises(ValueError, match="holiday.jpg") as error:
            load_dataset(name, tmp_path)
        assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
        with pytest.raises(ValueError, match="no such folder"):
            load_dataset(name, tmp_path / "absent")


def test_an_unknown_name_or_option_is_refused(tmp_path):
    with pytest.raises(ValueError, match="faust_r"):
        load_dataset("faustr", tmp_path)
    with pytest.raises(ValueError, match="train_per_class"):
        load_dataset("psb", tmp_path, shots=3)


# The real sets


def test_faust(dataset):
    faust = load_dataset("faust", dataset("faust"))
    assert names(faust, "train") == [f"tr_reg_{i:03d}" for i in range(80)]
    assert names(faust, "test") == [f"tr_reg_{i:03d}" for i in range(80, 100)]
    assert faust.part_names[3] == "forearm" and faust.part_count == 8
    first, last = faust.shapes[0].load(), faust.shapes[99].load()
    assert first.vertices.shape == (6890, 3)
    assert np.array_equal(first.faces, last.faces)
    assert np.array_equal(first.vertex_labels, last.vertex_labels)
    assert set(first.vertex_labels) == set(range(8))
    people = {shape.individual for shape in faust.subset("train")}
    assert people == set(range(8)) and people.isdisjoint(
        {s.individual for s in faust.subset("test")}
    )


def test_faust_r_landmarks_are_the_same_part_on_every_shape(dataset):
    faust = load_dataset("faust_r", dataset("faust_r"))
    shapes = [faust.shapes[i].load() for i in (0, 57, 99)]
    parts = [shape.vertex_labels[shape.correspondence] for shape in shapes]
    assert all(len(shape.correspondence) == 5000 for shape in shapes)
    # The labels were carried over shape by shape, so that they differ by a vertex along borders.
    assert min(np.mean(parts[0] == part) for part in parts) > 0.95
    assert len(faust.pairs) == 300 and max(max(pair) for pair in faust.pairs) < 100
    source, target = faust.corresponding(3, 81)
    assert np.array_equal(source, faust.shapes[3].load().correspondence)
    assert np.array_equal(target, faust.shapes[81].load().correspondence)


def test_faust_r_landmarks_keep_their_distances_on_a_rigid_part(dataset):
    faust = load_dataset("faust_r", dataset("faust_r"))
    first, second = (faust.shapes[row].load() for row in (0, 3))
    head = np.flatnonzero(first.vertex_labels[first.correspondence] == 0)[::40]
    apart = []
    for shape in (first, second):
        points = shape.vertices[shape.correspondence[head]]
        apart.append(np.linalg.norm(points[:, None] - points[None], axis=2))
    assert np.abs(apart[0] - apart[1]).max() < 0.15 * apart[0].max()


def test_tosca_corresponds_within_a_class_only(dataset):
    tosca = load_dataset("tosca", dataset("tosca_isometric"))
    assert len(tosca) == 76 and len(tosca.class_names) == 8
    order = names(tosca, "test")
    assert order.index("cat2") + 1 == order.index("cat3") and order.index("cat10") == 10
    cat, other, dog = tosca.row("cat0"), tosca.row("cat10"), tosca.row("dog0")
    source, target = tosca.corresponding(cat, other)
    assert len(source) == len(target) == 5000
    assert all(tosca.shapes[i].label == tosca.shapes[j].label for i, j in tosca.pairs)
    with pytest.raises(ValueError, match="cat0 and dog0"):
        tosca.corresponding(cat, dog)


def test_rna_labels_count_from_nought(dataset):
    rna = load_dataset("rna", dataset("rna"))
    assert {name: len(rows) for name, rows in rna.splits.items()} == {"train": 60, "test": 18}
    assert rna.part_count == 260
    shape = rna.subset("test")[0]
    raw = np.loadtxt(shape.path.parents[1] / "labels" / f"{shape.name}.txt", dtype=int)
    data = shape.load()
    assert np.array_equal(data.vertex_labels, raw + 1)
    assert data.vertex_labels.shape == (len(data.vertices),)


def test_psb_draws_shots_of_every_class(dataset):
    psb = load_dataset("psb", dataset("psb"), train_per_class=6, seed=3)
    assert len(psb.subset("train")) == 42 and len(psb.subset("test")) == 28
    assert {psb.class_names[s.label] for s in psb.shapes} == {
        *("ant", "bird", "fish", "fourleg", "hand", "octopus", "teddy")
    }
    shots = psb.few_shot("train", 3, seed=1)
    assert sorted(s.label for s in shots) == sorted(list(range(7)) * 3)
    assert [s.name for s in shots] == [s.name for s in psb.few_shot("train", 3, seed=1)]
    assert {s.name for s in psb.few_shot("train", 1, seed=1)} < {s.name for s in shots}
    assert names(psb, "train") != names(
        load_dataset("psb", psb.shapes[0].path.parents[1], train_per_class=6, seed=4), "train"
    )


# Miniature copies


def test_scape_r_is_split_by_number(tmp_path):
    root = remeshed(tmp_path, [f"mesh{i:03d}" for i in range(72) if i != 51])
    scape = load_dataset("scape_r", root)
    assert names(scape, "train") == [f"mesh{i:03d}" for i in range(51)]
    assert names(scape, "test") == [f"mesh{i:03d}" for i in range(52, 72)]
    (root / "off" / "mesh033.off").unlink()
    with pytest.raises(ValueError, match="1 shapes missing.* 33"):
        load_dataset("scape_r", root)


def test_vts_files_count_from_one_and_other_files_are_left_alone(tmp_path):
    root = remeshed(tmp_path, ["cat0", "cat1"])
    tosca = load_dataset("tosca", root)
    assert tosca.shapes[0].load().correspondence.tolist() == [3, 1, 0, 0]
    assert tosca.pairs == ((0, 1),)
    put(root / "corres" / "cat1.vts", lines(1, 5))
    with pytest.raises(ValueError, match="cat1.vts.*vertex 4, expected 0 to 3"):
        tosca.shapes[1].load()
    put(root / "corres" / "cat1.vts", lines(1, 0))
    with pytest.raises(ValueError, match=r"cat1.vts, line 2: vertex 0"):
        tosca.shapes[1].load()
    put(root / "corres" / "cat1.vts", "1\nx\n")
    with pytest.raises(ValueError, match=r"cat1.vts, line 2.*'x'"):
        tosca.shapes[1].load()
    (root / "corres" / "cat1.vts").unlink()
    with pytest.raises(ValueError, match="cat1.vts"):
        load_dataset("tosca", root)


def test_shrec19_leaves_out_shape_40_but_not_14_or_4(tmp_path):
    for i in (1, 4, 14, 40, 41):
        put(tmp_path / "off" / f"{i}.off")
    for a, b in ((1, 4), (4, 14), (40, 1), (1, 40), (14, 41)):
        put(tmp_path / "groundtruth" / f"{a}_{b}.map", lines(2, 3, 4, 1))
    shrec = load_dataset("shrec19_r", tmp_path)
    assert names(shrec, "test") == ["1", "4", "14", "41"]
    assert shrec.pairs == ((0, 1), (1, 2), (2, 3))
    source, target = shrec.corresponding(1, 2)
    assert source.tolist() == [0, 1, 2, 3] and target.tolist() == [1, 2, 3, 0]
    with pytest.raises(ValueError, match="no correspondence between 4 and 1"):
        shrec.corresponding(1, 0)
    put(tmp_path / "groundtruth" / "1_4.map", lines(2, 3, 4))
    with pytest.raises(ValueError, match=r"1_4.map: 3 lines.*4 vertices"):
        shrec.corresponding(0, 1)
    put(tmp_path / "groundtruth" / "1_4.map", lines(2, 3, 4, 5))
    with pytest.raises(ValueError, match=r"1_4.map: vertex 5"):
        shrec.corresponding(0, 1)
    put(tmp_path / "groundtruth" / "2_4.map", lines(1, 1, 1, 1))
    with pytest.raises(ValueError, match=r"no shape 2.off"):
        load_dataset("shrec19_r", tmp_path)


def test_smal_is_split_by_species(tmp_path):
    remeshed(
        tmp_path,
        ["cow_alph5", "dog_06", "fox_01", "lion3", "wolf", "cougar_1", "hippo_2", "horse_9"],
    )
    smal = load_dataset("smal_r", tmp_path)
    assert names(smal, "train") == ["cow_alph5", "dog_06", "fox_01", "lion3", "wolf"]
    assert names(smal, "test") == ["cougar_1", "hippo_2", "horse_9"]
    assert smal.class_names[smal.shapes[smal.row("hippo_2")].label] == "hippo"
    remeshed(tmp_path, ["zebra_1"])
    with pytest.raises(ValueError, match="zebra"):
        load_dataset("smal_r", tmp_path)


def human_segmentation(root: Path) -> Path:
    meshes, segs = root / "meshes", root / "segs"
    put(meshes / "train/adobe/kid.off")
    put(segs / "train/adobe/kid.txt", lines(1, 2, 3, 8))
    for name in ("tr_reg_000", "tr_reg_001"):
        put(meshes / "train/faust" / f"{name}.off")
    put(segs / "train/faust/faust_corrected.txt", lines(1, 1, 2, 2))
    for motion in (
        "bouncing",
        "crane",
        "handstand",
        "jumping",
        "march1",
        "march2",
        "squat1",
        "squat2",
    ):
        put(meshes / f"train/MIT_animation/meshes_{motion}/meshes/mesh_0000.off")
        put(segs / f"train/mit/mit_{motion}_corrected.txt", lines(5, 6, 7, 8))
    put(meshes / "train/scape/mesh000.off")
    put(segs / "train/scape/scape_corrected.txt", lines(4, 4, 4, 4))
    for i in range(1, 21):
        if i not in (16, 18):
            put(meshes / "test/shrec" / ("12_fix_orientation.off" if i == 12 else f"{i}.off"))
            put(segs / f"test/shrec/shrec_{i}_full.txt", lines(8, 7, 6, 5))
    put(meshes / "test/shrec/12.off", "not the one to read")
    return root


def test_human_segmentation_has_one_label_a_face(tmp_path):
    human = load_dataset(
        "human_segmentation", human_segmentation(tmp_path / "sig17_seg_benchmark").parent
    )
    assert len(human.subset("train")) == 12 and len(human.subset("test")) == 18
    assert human.part_count == 8
    kid = human.shapes[human.row("adobe/kid")].load()
    assert kid.face_labels.tolist() == [0, 1, 2, 7] and kid.vertex_labels is None
    assert human.shapes[human.row("faust/tr_reg_001")].load().face_labels.tolist() == [0, 0, 1, 1]
    assert human.shapes[human.row("mit/march2/mesh_0000")].load().face_labels.tolist() == [
        4,
        5,
        6,
        7,
    ]
    assert human.shapes[human.row("shrec/12")].path.name == "12_fix_orientation.off"


def test_labels_that_do_not_fit_name_the_file_and_both_numbers(tmp_path):
    root = human_segmentation(tmp_path)
    human = load_dataset("human_segmentation", root)
    kid = human.shapes[human.row("adobe/kid")]
    labels = put(root / "segs/train/adobe/kid.txt", lines(1, 2, 3))
    with pytest.raises(ValueError, match=r"kid.txt.*3 face labels for 4 faces"):
        kid.load()
    put(labels, lines(1, 2, 0, 3))
    with pytest.raises(ValueError, match=r"kid.txt: label 0 \(number 3\), expected 1 to 8"):
        kid.load()
    labels.unlink()
    with pytest.raises(ValueError, match=r"kid.txt"):
        load_dataset("human_segmentation", root)


def test_shrec11_in_both_layouts(tmp_path):
    contest, simplified = tmp_path / "contest", tmp_path / "simplified"
    for k in range(6):
        put(contest / "raw" / f"T{k}.off")
    put(contest / "categories.txt", "PSB 1\n2 6\n\nalien 0 3\n5\n0\n3\n\nants 0 3\n1\n2\n4\n")
    shrec = load_dataset("shrec11", contest, train_per_class=2)
    assert shrec.class_names == ("alien", "ants")
    assert {s.name for s in shrec.shapes if s.label == 0} == {"T5", "T0", "T3"}
    assert [s.label for s in shrec.subset("test")] == [0, 1]
    with pytest.raises(ValueError, match="3 of 3 shapes of class alien"):
        load_dataset("shrec11", contest, train_per_class=3)
    put(contest / "categories.txt", "PSB 1\n2 6\n\nalien 0 3\n5\n0\n")
    with pytest.raises(ValueError, match="block of 'alien'"):
        load_dataset("shrec11", contest)

    for kind, part, k in (
        ("alien", "train", 1),
        ("alien", "test", 2),
        ("ants", "train", 3),
        ("ants", "test", 4),
    ):
        put(simplified / kind / part / f"T{k}.off")
    shrec = load_dataset("shrec11", simplified, train_per_class=1)
    assert [(s.name, s.label) for s in shrec.shapes] == [("T2", 0), ("T1", 0), ("T4", 1), ("T3", 1)]


def test_psb_knows_the_numbers_of_the_benchmark(tmp_path):
    for k in (1, 2, 81, 82, 399, 400):
        put(tmp_path / "off" / f"{k}.off")
    psb = load_dataset("psb", tmp_path, train_per_class=1)
    assert psb.class_names == ("ant", "fourleg", "human")
    assert names(psb, "all")[2:4] == ["ant/81", "ant/82"]
    with pytest.raises(InputError, match="train_per_class 1.0, expected a whole number"):
        load_dataset("psb", tmp_path, train_per_class=1.0)


def test_faust_needs_all_its_shapes(tmp_path):
    for i in range(99):
        put(tmp_path / "registrations" / f"tr_reg_{i:03d}.off")
    with pytest.raises(ValueError, match="1 shapes missing, of numbers 99"):
        load_dataset("faust", tmp_path)


# A folder of one's own


def test_a_folder_of_classes_with_labels_landmarks_and_splits(tmp_path):
    for kind in ("cat", "dog"):
        for k in (1, 2, 10):
            put(tmp_path / kind / f"{k}.off")
            put(tmp_path / kind / "corres" / f"{k}.vts", lines(1, 3))
    put(tmp_path / "cat" / "1.vlabels.txt", lines(0, 1, -1, 0))
    put(tmp_path / "cat" / "2.flabels.txt", lines(1, 1, 0, 1))
    put(tmp_path / "part_names.txt", "body\ntail\n")
    put(tmp_path / "splits.yaml", "train: [cat/1, cat/2, dog/1, dog/2]\ntest: [cat/10, dog/10]\n")
    put(tmp_path / "individuals.yaml", "tom: [cat/1, cat/2]\n")
    own = load_dataset("folder", tmp_path)
    assert own.class_names == ("cat", "dog") and own.part_names == ("body", "tail")
    assert names(own, "all") == ["cat/1", "cat/2", "cat/10", "dog/1", "dog/2", "dog/10"]
    assert names(own, "test") == ["cat/10", "dog/10"]
    first, second = own.shapes[0].load(), own.shapes[1].load()
    assert first.vertex_labels.tolist() == [0, 1, -1, 0] and first.face_labels is None
    assert second.face_labels.tolist() == [1, 1, 0, 1] and second.vertex_labels is None
    assert own.corresponding(0, 1)[0].tolist() == [0, 2]
    with pytest.raises(ValueError, match="cat/1 and dog/1"):
        own.corresponding(0, 3)
    put(tmp_path / "templates.yaml", "beast: [cat, dog]\n")
    assert load_dataset("folder", tmp_path).corresponding(0, 3)[1].tolist() == [0, 2]
    kept, held = own.hold_out("train", 0.5, seed=0)
    assert [s.name for s in kept if s.label == 0] + [s.name for s in held if s.label == 0] == [
        "cat/1",
        "cat/2",
    ]

    put(tmp_path / "splits.yaml", "train: [cat/1]\ntest: [cat/3]\n")
    with pytest.raises(ValueError, match=r"splits.yaml:2: test: there is no shape 'cat/3'"):
        load_dataset("folder", tmp_path)
    put(tmp_path / "splits.yaml", "train: [cat/1, dog/1]\ntest: [cat/2, dog/1]\n")
    with pytest.raises(InputError, match=r"splits.yaml: dog/1 is in train and in test"):
        load_dataset("folder", tmp_path)
    put(tmp_path / "templates.yaml", "beast: [cat, [dog]]\n")
    with pytest.raises(InputError, match=r"templates.yaml: beast: there is no class \['dog'\]"):
        load_dataset("folder", tmp_path)
    put(tmp_path / "stray.off")
    with pytest.raises(InputError, match="meshes both here and in cat, dog, expected"):
        load_dataset("folder", tmp_path)


def test_an_empty_line_does_not_shift_what_follows_it(tmp_path):
    put(tmp_path / "a.off")
    put(tmp_path / "corres" / "a.vts", "1\n\n3\n")
    put(tmp_path / "part_names.txt", "head\n\narm\n")
    message = r"part_names.txt, line 2: empty, expected the name of part 1"
    with pytest.raises(ValueError, match=message):
        load_dataset("folder", tmp_path)
    (tmp_path / "part_names.txt").write_text("head\narm\n\n")
    own = load_dataset("folder", tmp_path)
    assert own.part_names == ("head", "arm")
    with pytest.raises(
        ValueError, match=r"a.vts, line 2: empty, expected the vertex of landmark 1"
    ):
        own.shapes[0].load()


def test_left_and_right_parts_can_be_merged(tmp_path):
    put(tmp_path / "a.off")
    put(tmp_path / "a.vlabels.txt", lines(0, 1, 2, -1))
    put(tmp_path / "part_names.txt", "head\nleft arm\nright arm\n")
    own = load_dataset("folder", tmp_path, merge_left_right=True)
    assert own.part_names == ("head", "arm") and own.part_count == 2
    assert own.shapes[0].load().vertex_labels.tolist() == [0, 1, 1, -1]
    put(tmp_path / "part_names.txt", "Head\nLeft Arm\nright arm\n")
    assert load_dataset("folder", tmp_path, merge_left_right=True).part_names == ("Head", "Arm")
    put(tmp_path / "part_names.txt", "head\nL_arm\nR_arm\n")
    with pytest.raises(ValueError, match="part_names.txt: .*'right arm', got head, L_arm, R_arm"):
        load_dataset("folder", tmp_path, merge_left_right=True)
    (tmp_path / "part_names.txt").unlink()
    with pytest.raises(ValueError, match="no part_names.txt"):
        load_dataset("folder", tmp_path, merge_left_right=True)


def test_a_plain_folder_needs_nothing_but_meshes(tmp_path):
    for k in range(9):
        put(tmp_path / f"thing{k}.off")
    put(tmp_path / "thing\u00b2.off")  # a superscript is no number to sort by
    with pytest.raises(InputError, match="train_share: got 'x', expected a share between"):
        load_dataset("folder", tmp_path, train_share="x")
    own = load_dataset("folder", tmp_path, train_share=0.7, seed=5)
    assert own.class_names is None and own.part_names is None
    assert len(own.subset("train")) == 7 and len(own.subset("test")) == 3
    assert names(own, "train") == names(
        load_dataset("folder", tmp_path, train_share=0.7, seed=5), "train"
    )
    with pytest.raises(ValueError, match="no split 'validation', it has train, test"):
        own.subset("validation")
    with pytest.raises(ValueError, match="not 8"):
        own.few_shot("train", 8, seed=0)
    with pytest.raises(ValueError, match="seed -1, expected a whole number"):
        own.few_shot("train", 1, seed=-1)
    data = own.shapes[0].load()
    assert data.vertex_labels is None and data.face_labels is None and data.correspondence is None


def test_the_number_of_labels_says_what_they_belong_to(tmp_path):
    corners = "0 0 1\n0 0 -1\n1 0 0\n-1 1 0\n-1 -1 0\n"
    faces = "3 0 2 3\n3 0 3 4\n3 0 4 2\n3 1 3 2\n3 1 4 3\n3 1 2 4\n"
    bipyramid = f"OFF\n5 6 0\n{corners}{faces}"
    put(tmp_path / "off" / "a.off", bipyramid)
    labels = put(tmp_path / "labels" / "a.txt", lines(0, 1, 2, 0, 1))
    shape = load_dataset("folder", tmp_path).shapes[0]
    assert shape.load().vertex_labels.tolist() == [0, 1, 2, 0, 1]
    put(labels, lines(0, 1, 2, 0, 1, 4))
    assert shape.load().face_labels.tolist() == [0, 1, 2, 0, 1, 4]
    put(labels, lines(0, 1, 2, 0, 1, 4, 4))
    with pytest.raises(
        ValueError, match=r"a.txt: 7 labels, but .*a.off has 5 vertices and 6 faces"
    ):
        shape.load()
    put(tmp_path / "off" / "a.off")  # a tetrahedron has four of each
    put(labels, lines(0, 1, 2, 3))
    with pytest.raises(ValueError, match=r"as many vertices as faces \(4\).*a.vlabels.txt"):
        shape.load()
    put(tmp_path / "off" / "a.flabels.txt", lines(0, 1, 2, 3))
    with pytest.raises(ValueError, match="2 label files"):
        load_dataset("folder", tmp_path)


def test_two_meshes_of_one_name_are_refused(tmp_path):
    put(tmp_path / "a.off")
    put(tmp_path / "a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(ValueError, match="which of the two"):
        load_dataset("folder", tmp_path)


def test_holding_out_keeps_individuals_together(tmp_path):
    for i in range(100):
        put(tmp_path / "registrations" / f"tr_reg_{i:03d}.off")
    faust = load_dataset("faust", tmp_path)
    kept, held = faust.hold_out("train", 0.25, seed=2)
    assert len(held) == 20 and len(kept) == 60
    assert {s.individual for s in kept}.isdisjoint({s.individual for s in held})
    assert not {s.name for s in held} & set(names(faust, "test"))
    with pytest.raises(ValueError, match="share of 1"):
        faust.hold_out("train", 1, seed=2)


def test_a_random_split_keeps_individuals_together(tmp_path):
    for k in range(8):
        put(tmp_path / f"{k}.off")
    put(tmp_path / "individuals.yaml", "ann: [0, 1, 2, 3]\nbob: [4, 5, 6, 7]\n")
    for seed in range(4):
        own = load_dataset("folder", tmp_path, seed=seed)
        who = {
            split: {own.shapes[row].individual for row in own.rows(split)}
            for split in ("train", "test")
        }
        assert len(who["train"]) == len(who["test"]) == 1 and who["train"].isdisjoint(who["test"])
