"""Each kind of table shows the numbers of its result, and each kind of result can be compared."""

from __future__ import annotations

from typing import Any

import pytest

from sparsefeat.errors import InputError
from sparsefeat.results.agreement import compare
from sparsefeat.results.views import VIEWS


def result(task: str, numbers: dict[str, Any], name: str = "a", **more: Any) -> dict[str, Any]:
    return {
        "task": task, "name": name, "date": "2026-11-29T20:07:41+00:00",
        "command": "sparsefeat transfer x.yaml 'networks={a: b}' --output o --result a",
        "commit": "0123456789abcdef", "modified": False, "seeds": [0, 1], "cpu_seconds": 90,
        "versions": {"sparsefeat": "0.2.0", "torch": "2.13.0"},
        "machine": {"processor": "A CPU", "architecture": "x86_64", "threads": 1, "gpu": None},
        "numbers": numbers,
    } | more  # fmt: skip


def rows(table: str) -> list[list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len({len(line) for line in lines}) == 1, "every row has every column"
    return [lines[0], *lines[2:]]


def transfer_numbers(task: str = "segmentation") -> dict[str, Any]:
    config = {
        "task": task, "methods": ["tuned", "hks"], "shots": [1, 5], "rotate": True,
        "features": {"checkpoint": "sparsefeat/net-v1"},
    }  # fmt: skip
    scores = [
        {"method": method, "shots": shots, "seed": seed, "accuracy": 0.5 + 0.1 * seed,
         "accuracy_rotated": 0.25, "voxel_size": 0.02 + 0.01 * seed if method == "tuned" else None}
        for method in config["methods"] for shots in config["shots"] for seed in (0, 1)
    ]  # fmt: skip
    return {
        "config": config, "scores": scores, "maps": [], "pairs": 0, "tunings": {},
        "curve": [{"voxel_size": 0.02, "score": 0.5}], "adapter": None,
    }  # fmt: skip


def map_numbers() -> dict[str, Any]:
    maps = [
        {"method": method, "map": kind, "rotated": rotated, "error": 20.0 + rotated}
        for method in ("tuned", "hks") for kind in ("nearest", "functional")
        for rotated in (False, True)
    ]  # fmt: skip
    tunings = {"tuned": [{"voxel_sizes": [0.0179]}]}
    return transfer_numbers("correspondence") | {"scores": [], "maps": maps, "tunings": tunings}


def adapter_numbers() -> dict[str, Any]:
    grid = [{"voxel_size": 0.01, "accuracy": 0.7, "points": 9}]
    grid.append({"voxel_size": 0.02, "accuracy": 0.8, "points": 9})
    tuned = {"start": 0.06, "voxel_size": 0.0218, "accuracy": 0.81, "cost_share": 0.19}
    tuned |= {"scanned": 0.02, "scanned_accuracy": 0.805}
    draw = {"seed": 7, "grid": grid, "accuracy": 0.8, "tuned": [tuned]}
    return transfer_numbers() | {"adapter": {"draws": [draw], "summary": {}}}


def engine_numbers() -> dict[str, Any]:
    timings = {"sparsefeat": {"median_s": 0.02}, "products": {"median_s": 0.01}}
    row = {
        "case": "conv3-32-32@5k", "operation": "forward", "threads": 2, "dtype": "fp32",
        "timings": timings, "ratios": {"products": 0.5}, "memory_bytes": None,
    }  # fmt: skip
    return {"results": [row, row | {"operation": "map", "ratios": {}, "memory_bytes": 10**8}]}


def voxel_numbers() -> dict[str, Any]:
    contenders = {
        "sparsefeat": {"times": {"median_s": 0.008}},
        "open3d": {"times": {"median_s": 0.016}, "voxels": 98, "missing": 3, "extra": 1},
    }
    row = {"triangles": 2048, "resolution": 64, "voxels": 1100, "contenders": contenders}
    return {"results": [row]}


def kill_numbers() -> dict[str, Any]:
    tool = {"kills": 3, "by_signal": {"SIGKILL": 1, "SIGTERM": 2}, "too_late": 1, "swept": 2}
    return {"tools": {"extract": tool | {"failures": []}}}


def test_accuracies_are_means_over_seeds_with_their_spread():
    assert rows(VIEWS["transfer"]([result("shapes", transfer_numbers())])) == [
        ["features", "1 labelled", "1 labelled, turned", "5 labelled", "5 labelled, turned", "voxel size"],
        ["`net-v1`, tuned voxel size", *["0.550 ± 0.050", "0.250 ± 0.000"] * 2, "0.02 to 0.03"],
        ["HKS", *["0.550 ± 0.050", "0.250 ± 0.000"] * 2, ""],
    ]  # fmt: skip


def test_errors_of_maps_are_shown_as_given_and_turned():
    table = rows(VIEWS["transfer"]([result("shapes", map_numbers())], methods="tuned"))
    assert table == [
        ["features", "nearest", "nearest, turned", "functional", "functional, turned", "voxel size"],
        ["`net-v1`, tuned voxel size", "20.0", "21.0", "20.0", "21.0", "0.0179"],
    ]  # fmt: skip


def test_the_adapter_is_shown_beside_the_best_of_the_grid():
    table = rows(VIEWS["adapter"]([result("receptive_field", adapter_numbers())]))
    assert table[1:] == [
        ["7", "0.0200, 0.800", "0.0600", "0.0218", "+0.25", "+1.0", "+0.5", "19 %"]
    ]


def test_records_are_rows_of_the_keys_that_are_asked_for():
    numbers = {"readers": {"ply": {"inputs": 5, "bad": [], "more": {"share": 0.25}}, "off": {}}}
    table = rows(
        VIEWS["records"](
            [result("robustness", numbers)],
            columns="inputs,bad,more.share",
            under="readers",
            titles="inputs,faults,share",
            first="reader",
        )
    )
    assert table == [
        ["reader", "inputs", "faults", "share"],
        ["ply", "5", "0", "0.250"],
        ["off", "", "", ""],
    ]
    with pytest.raises(InputError, match="2 titles for 1 columns"):
        VIEWS["records"]([result("robustness", numbers)], columns="inputs", titles="a,b")


def test_times_stand_beside_those_of_others():
    assert rows(VIEWS["timings"]([result("engine", engine_numbers())])) == [
        ["case", "threads", "dtype", "ms", "products, times ours"],
        ["conv3-32-32@5k forward", "2", "fp32", "20.0", "0.50"],
        ["conv3-32-32@5k map", "2", "fp32", "20.0", ""],
    ]


def test_voxels_that_others_miss_and_add_are_in_brackets():
    table = rows(VIEWS["voxels"]([result("voxelization", voxel_numbers())]))
    assert table[1] == ["2,048", "64", "1,100", "8.0", "16.0 (-3, +1)"]


def test_kills_are_counted_by_signal():
    table = rows(VIEWS["kills"]([result("robustness", kill_numbers())]))
    assert table[1] == ["extract", "3", "SIGKILL 1, SIGTERM 2", "2", "0"]


def test_an_origin_is_all_that_it_takes_to_measure_again():
    text = VIEWS["origin"]([result("shapes", {})])
    assert text == (
        "`results/shapes/a.json`: 2026-11-29; commit `012345678`; sparsefeat 0.2.0, torch 2.13.0; A CPU; "
        "1 thread; seeds 0, 1;\n1.5 minutes of CPU.\n\n"
        "```text\nsparsefeat transfer x.yaml 'networks={a: b}'\n```"
    )
    changed = result("shapes", {}, commit=None, modified=True, cpu_seconds=None)
    text = VIEWS["origin"]([changed])
    text = text.replace("\n", " ")
    assert "no commit recorded; files differed from the commit" in text
    assert "duration not recorded" in text


def test_descriptors_of_several_runs_are_rows_of_one_table():
    means = {"FMR": 0.5, "FMR_sd": 0.1, "n_pairs": 4}
    first = result("matching", means | {"baselines": {"fpfh": means | {"FMR": 0.25}}})
    table = VIEWS["descriptors"]([first, result("matching", means, "b")], "FMR", "`x`;`y`")
    assert rows(table)[1:] == [
        ["`x`", "4", "0.500 ± 0.100"],
        ["FPFH", "4", "0.250 ± 0.100"],
        ["`y`", "4", "0.500 ± 0.100"],
    ]
    with pytest.raises(InputError, match="names: expected 1, separated by ;, got 2"):
        VIEWS["descriptors"]([first], "FMR", "x;y")


@pytest.mark.parametrize("view", ["regimes", "transfer", "timings", "voxels", "kills"])
def test_tables_of_one_result_refuse_two(view):
    with pytest.raises(InputError, match="expected one result, got 2"):
        VIEWS[view]([result("shapes", {})] * 2)


@pytest.mark.parametrize(
    ("task", "numbers", "count"),
    [
        ("shapes", transfer_numbers(), 8 * 2 + 4 + 2),
        ("shapes", map_numbers(), 8 + 2),
        ("receptive_field", adapter_numbers(), 1 + 2 + 3),
        ("engine", engine_numbers(), 2),
        ("voxelization", voxel_numbers(), 4),
        ("robustness", kill_numbers(), 1),
    ],
)
def test_numbers_agree_with_themselves(task, numbers, count):
    found = compare(result(task, numbers), numbers)
    assert len(found) == count and all(comparison.agrees for comparison in found)
    assert len({comparison.name for comparison in found}) == count, "every number has its own name"


def test_times_of_another_machine_agree_if_their_ratio_does():
    again = engine_numbers()
    again["results"][0]["timings"]["sparsefeat"]["median_s"] = 7.0
    again["results"][0]["ratios"]["products"] = 0.7
    assert all(
        comparison.agrees for comparison in compare(result("engine", engine_numbers()), again)
    )
    again["results"][0]["ratios"]["products"] = 0.8
    assert [c.agrees for c in compare(result("engine", engine_numbers()), again)] == [False, True]


def test_accuracies_on_damaged_shapes_are_compared():
    numbers, again = transfer_numbers(), transfer_numbers()
    for each, accuracy in ((numbers, 0.5), (again, 0.4)):
        each["scores"][0]["accuracy_damaged"] = {"cut": accuracy, "cloud": 0.3}
    found = [c for c in compare(result("shapes", numbers), again) if not c.agrees]
    assert [c.line() for c in found] == [
        "tuned, 1 shots, seed 0: accuracy, cut: published 0.5, now 0.4, tolerance 0.02: DIFFERS"
    ]


def test_a_curve_about_a_tuned_size_that_ended_nearby_agrees():
    again = transfer_numbers()
    again["curve"][0]["voxel_size"] *= 1.01
    assert all(found.agrees for found in compare(result("shapes", transfer_numbers()), again))
    again["curve"][0]["score"] += 0.03
    wrong = [c.name for c in compare(result("shapes", transfer_numbers()), again) if not c.agrees]
    assert wrong == ["point 1 of the curve: score"]
    again = adapter_numbers()
    draw = again["adapter"]["draws"][0]
    for numbers, name in ((draw["grid"][0], "voxel_size"), (draw["tuned"][0], "start")):
        numbers[name] *= 1.001
    found = compare(result("receptive_field", adapter_numbers()), again)
    assert all(comparison.agrees for comparison in found)


def test_numbers_of_another_form_are_refused():
    with pytest.raises(InputError, match="engine/a: not numbers of engine"):
        compare(result("engine", engine_numbers()), {"rows": []})
    with pytest.raises(InputError, match="expected one of matching, study"):
        compare(result("speed", {}), {})


def condition_numbers() -> dict[str, Any]:
    row = {
        "RR": 0.75, "scenes": {"7-scenes-redkitchen": 1.0, "s": 0.5}, "found": 3, "sure": 2,
        "sure_right": 2, "matches": 400, "inlier_ratio": 0.3,
        "cpu_ms": {"describe": 200.4, "match": 300.0, "pose": 60.0},
        "others": {"kiss": {"RR": 0.5, "cpu_ms": 1.6}},
    }  # fmt: skip
    return {
        "checkpoint": "c", "n_pairs": {"7-scenes-redkitchen": 2, "s": 2}, "absent": ["ransac"],
        "conditions": {"as recorded": row, "noise": row | {"others": {}}},
    }  # fmt: skip


def test_conditions_agree_scene_by_scene_and_one_without_a_recall_has_none_to_compare():
    numbers = condition_numbers()
    numbers["conditions"]["noise"] |= {"RR": None, "truth_kept": 0.5}
    found = compare(result("matching", numbers), numbers)
    assert len({comparison.name for comparison in found}) == len(found) == 2 + (4 + 1) + 4
    assert all(comparison.agrees for comparison in found)
    again = condition_numbers()
    again["n_pairs"]["7-scenes-redkitchen"] = numbers["n_pairs"]["7-scenes-redkitchen"] = 40
    again["conditions"]["noise"] |= {
        "truth_kept": 0.5,
        "scenes": {"7-scenes-redkitchen": 0.9, "s": 0.5},
    }
    wrong = [c.name for c in compare(result("matching", numbers), again) if not c.agrees]
    assert wrong == ["noise: RR of 7-scenes-redkitchen"]
    again["conditions"]["as recorded"] = again["conditions"]["as recorded"] | {"RR": None}
    found = compare(result("matching", numbers), again)
    assert [c.name for c in found if c.now is None] == ["as recorded: RR"]


def test_registration_is_shown_by_condition():
    measured = result("matching", condition_numbers())
    table = rows(VIEWS["conditions"]([measured]))
    assert table[0][1:4] == ["RR", "RR, redkitchen", "RR, s"]
    assert table[1] == ["as recorded", "0.750", "1.000", "0.500", "2 of 2", "0.300", "0.500"]
    assert table[2][-1] == "", "a solver that was not there"
    times = rows(VIEWS["condition_times"]([measured]))
    assert times[0][-1] == "the same by KISS-Matcher"
    assert times[1] == ["as recorded", "200", "300", "60", "2"]
    kept = condition_numbers()
    kept["conditions"]["as recorded"]["truth_kept"] = 0.875
    table = rows(VIEWS["conditions"]([result("matching", kept)]))
    column = table[0].index("RR from the true pose")
    assert table[1][column] == "0.875" and table[2][column] == ""
    compared = compare(measured, condition_numbers())
    assert len(compared) == 2 + 5 + 4 and all(comparison.agrees for comparison in compared)


def test_a_part_in_pieces_says_so():
    numbers = zero_shot_numbers()
    numbers["pairs"][0]["pieces"] = 3
    table = rows(VIEWS["zero_shot"]([result("maps", numbers)]))
    assert [row[0] for row in table[1:3]] == ["a (3 pieces) to b", "a to c"]


def test_the_worst_maps_alone():
    table = rows(VIEWS["zero_shot"]([result("maps", zero_shot_numbers())], worst="1"))
    errors = [pair["error"] for pair in zero_shot_numbers()["pairs"]]
    assert len(table) == 4  # the head, the worst, mean and median
    assert table[1][1] == f"{max(errors):.2f}"
    assert table[2][0] == f"mean of all {len(errors)}"
    assert table[2][1] == f"{sum(errors) / len(errors):.2f}"


def zero_shot_numbers() -> dict[str, Any]:
    pairs = [
        {"source": "a", "target": b, "error": e, "right": 0.9, "confidence": 0.8}
        for b, e in (("b", 1.0), ("c", 2.0), ("d", 6.0))
    ]
    return {"error": 3.0, "pairs": pairs}


def test_maps_are_shown_pair_by_pair_with_mean_and_median():
    table = rows(VIEWS["zero_shot"]([result("maps", zero_shot_numbers())]))
    assert table[1] == ["a to b", "1.00", "0.90", "0.80"]
    assert table[4:] == [["mean", "3.00", "0.90", "0.80"], ["median", "2.00", "0.90", "0.80"]]


def test_snapshots_of_a_trained_head_are_rows():
    records = [
        {"step": 5, "seconds": 90.0, "rotated": turned, "map": kind, "error": error}
        for turned, kind, error in ((False, "nearest", 4.0), (False, "refined", 2.0),
                                    (True, "nearest", 4.5), (True, "refined", 2.5))
    ]  # fmt: skip
    numbers = {"config": {}, "records": records, "pairs": [["a", "b"]]}
    assert rows(VIEWS["trained_maps"]([result("maps", numbers)]))[1:] == [
        ["5", "1.5", "as given", "4.00", "2.00"],
        ["5", "1.5", "turned", "4.50", "2.50"],
    ]
    both = VIEWS["trained_maps"]([result("maps", numbers)] * 2, names="joined;WKS")
    assert rows(both)[0] == ["training", "steps", "minutes", "shapes", "nearest", "refined"]
    assert rows(both)[3:] == [
        ["WKS", "5", "1.5", "as given", "4.00", "2.00"],
        ["WKS", "5", "1.5", "turned", "4.50", "2.50"],
    ]


def test_an_axis_has_mean_and_sample_deviation_of_each_setting():
    def record(setting: str, seed: int, measure: str, **values: float) -> dict[str, Any]:
        return {"setting": setting, "seed": seed, "measure": measure, "values": values}

    numbers = {
        "config": {"settings": {"cycle": {}, "other": {}}},
        "records": [
            record("cycle", 0, "training", loss=9.0),
            record("cycle", 0, "people", clean=0.5, cut=0.25),
            record("cycle", 1, "people", clean=0.7, cut=0.25),
            record("other", 0, "people", clean=0.125),
        ],
    }
    assert rows(VIEWS["axis"]([result("axes", numbers)])) == [
        ["setting", "people clean", "people cut"],
        ["cycle", "0.600 ± 0.141", "0.250 ± 0.000"],
        ["other", "0.125", ""],
    ]
    assert rows(VIEWS["axis"]([result("axes", numbers)], columns="people cut"))[0] == [
        "setting",
        "people cut",
    ]


def test_a_voxel_size_that_was_given_is_not_called_tuned():
    numbers = transfer_numbers()
    assert rows(VIEWS["transfer"]([result("transfer", numbers)]))[1][0].endswith("tuned voxel size")
    numbers["config"]["features"]["voxel_size"] = 0.035
    assert rows(VIEWS["transfer"]([result("transfer", numbers)]))[1][0].endswith("given voxel size")
