"""Draw the figures of the concepts pages and the transfer picture: `python docs/make_figures.py [NAME ...]`.

Shapes are synthetic: curves, a wavy sheet, and for "transfer" a room and creatures that the package makes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

FOLDER = Path(__file__).parent / "images"
BLUE, ORANGE, GREY, GREEN = "#2f6fb0", "#d9822b", "#b8bec6", "#3a9a5b"
plt.rcParams.update({"font.size": 10, "svg.hashsalt": "sparsefeat", "svg.fonttype": "none"})


def kernel_map() -> None:
    """A curve, its voxels, and what one output voxel sees."""
    t = np.linspace(0, 2 * np.pi, 400)
    curve = np.stack([6 + 4.2 * np.cos(t), 4.5 + 3 * np.sin(t) + 0.5 * np.sin(3 * t)], 1)
    cells = np.unique(np.floor(curve).astype(int), axis=0)
    out = cells[np.abs(cells - [9, 6]).sum(1).argmin()]
    axes = plt.subplots(figsize=(6.4, 4))[1]
    for cell in cells:
        seen = np.abs(cell - out).max() <= 1
        color = ORANGE if (cell == out).all() else BLUE if seen else GREY
        axes.add_patch(plt.Rectangle(cell, 1, 1, facecolor=color, alpha=0.6, edgecolor="white"))
        if seen:
            k = (cell - out + 1) @ [1, 3]
            axes.text(*(cell + 0.5), str(k), ha="center", va="center")
    axes.add_patch(plt.Rectangle(out - 1, 3, 3, fill=False, edgecolor=ORANGE, linewidth=1.6))
    axes.plot(*curve.T, color="black", linewidth=1)
    axes.set(xlim=(0, 15), ylim=(0, 9.4), aspect="equal", xticks=[], yticks=[])
    axes.text(11.4, 7.8, "orange: output voxel o", color=ORANGE)
    axes.text(11.4, 7.1, "blue: inputs i that it sees", color=BLUE)
    axes.text(11.4, 6.4, "number: kernel cell k")
    axes.text(11.4, 5.7, "grey: not seen", color="#7a828c")
    axes.set_axis_off()
    _save("kernel-map.svg")


def pairs() -> None:
    """A ridge and a groove with two normals each."""
    figure, panels = plt.subplots(1, 2, figsize=(7, 2.6))
    x = np.linspace(-2, 2, 200)
    for axes, sign, name in zip(panels, (1, -1), ("ridge", "groove")):
        y = -sign * 0.35 * x**2
        axes.fill_between(x, y, -2.2, color=GREY, alpha=0.5, linewidth=0)
        axes.plot(x, y, color="black")
        ends = []
        for place, label in ((-1.1, "$n_o$"), (0.9, "$n_i$")):
            here = np.array([place, -sign * 0.35 * place**2])
            normal = np.array([sign * 0.7 * place, 1]) / np.hypot(0.7 * place, 1)
            axes.annotate("", here + 0.9 * normal, here, arrowprops={"arrowstyle": "->", "color": BLUE, "lw": 1.6})  # fmt: skip
            axes.text(*(here + 1.05 * normal), label, color=BLUE, ha="center", va="center")
            ends.append(here)
        axes.annotate("", ends[1], ends[0], arrowprops={"arrowstyle": "->", "color": ORANGE, "lw": 1.6})  # fmt: skip
        axes.text(*(np.mean(ends, 0) - [0, 0.35]), "$d$", color=ORANGE, ha="center")
        axes.set(title=name, xlim=(-2, 2), ylim=(-2.2, 2.4), aspect="equal")
        axes.set_axis_off()
    figure.tight_layout()
    _save("pairs.svg")


def receptive_field() -> None:
    """The influence of a released network over the distance, on a wavy sheet."""
    import sparsefeat

    axes = plt.subplots(figsize=(5.6, 3.2))[1]
    for name, color in (("rooms-5cm-oriented-v1", BLUE), ("creatures-oriented-v5", ORANGE)):
        model = sparsefeat.from_pretrained(f"sparsefeat/{name}")
        measured = sparsefeat.receptive_field.measure(model, probes=8)
        axes.plot(measured.radii, measured.influence, color=color, label=name)
        print(name, measured)
    axes.set(xlim=(0, 15), ylim=(0, 1.02), xlabel="distance from the output, voxels")
    axes.set_ylabel("share of the squared gradient within")
    axes.axhline(0.9, color=GREY, linewidth=0.8, linestyle="--")
    axes.text(14.9, 0.85, "90 %", ha="right", color="#7a828c")
    axes.legend(frameon=False, loc="lower right")
    plt.tight_layout()
    _save("receptive-field.svg")


def ladder() -> None:
    """Blend weights of five rungs."""
    from sparsefeat.receptive_field import blend_weights

    position = torch.linspace(-0.5, 3.5, 400)
    rungs = torch.arange(-1.0, 5.0)
    weights = blend_weights(position, rungs)
    sizes = 0.05 * np.sqrt(2) ** (position.numpy() - 0.5)
    axes = plt.subplots(figsize=(5.6, 2.8))[1]
    for k, rung in enumerate(rungs):
        axes.plot(sizes, weights[:, k], color=BLUE if rung % 2 else ORANGE)
    marks = [0.05 * np.sqrt(2) ** (k - 0.5) for k in range(4)]
    axes.set_xscale("log")
    axes.set_xticks(marks, [f"{100 * mark:.1f} cm" for mark in marks])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="voxel size (logarithmic); ticks are rungs", ylabel="weight of a rung", ylim=0)
    plt.tight_layout()
    _save("ladder.svg")


def cycle() -> None:
    """Two clouds with a walk that closes through the true place."""
    t = np.linspace(0, 1, 9)
    cloud = np.stack([3 * t, 0.5 * np.sin(5 * t)], 1)
    axes = plt.subplots(figsize=(6.4, 3.2))[1]
    upper, lower = cloud + [0, 2], cloud + [0.2, 0]
    axes.plot(*upper.T, "o", color=BLUE)
    axes.plot(*lower.T, "o", color=ORANGE)
    axes.text(3.4, upper[-1, 1], "cloud 0", color=BLUE, va="center")
    axes.text(3.6, lower[-1, 1], "cloud 1", color=ORANGE, va="center")
    start = 3
    for k, weight in enumerate((0.02, 0.05, 0.15, 0.9, 0.3, 0.05, 0.1, 0.02, 0.02)):
        axes.plot(*np.stack([upper[start], lower[k]]).T, color=GREY, linewidth=0.3 + 5 * weight, zorder=0)  # fmt: skip
    left, right = np.array([-0.05, 0.1]), np.array([0.05, 0.1])
    for tip, tail in (
        (lower[start] + left, upper[start] - right),
        (upper[start] - left, lower[start] + right),
    ):
        arrow = {"arrowstyle": "->", "color": GREEN, "lw": 2, "connectionstyle": "arc3,rad=0.3"}
        axes.annotate("", tip, tail, arrowprops=arrow)
    axes.add_patch(plt.Circle(lower[start], 0.45, fill=False, color=GREEN, linestyle="--"))
    axes.text(*(lower[start] + [-0.75, -1.15]), "within $r$ of the true place", ha="center", color=GREEN)  # fmt: skip
    axes.text(*(upper[start] + [-0.1, 0.25]), "$i$", color=BLUE, ha="right", fontsize=12)
    axes.set(xlim=(-0.3, 4.3), ylim=(-1.2, 3), aspect="equal")
    axes.set_axis_off()
    _save("cycle.svg")


def transfer() -> None:
    """Features of one checkpoint on a scan of a room and on two people."""
    import sparsefeat
    from sparsefeat.data.shapes import load_dataset
    from sparsefeat.io.pointcloud import read_points
    from sparsefeat.synthetic.creatures import make_creatures
    from sparsefeat.synthetic.rooms import make_rooms
    from sparsefeat.visualize import PcaColors, render_meshes, render_points

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_rooms(root / "rooms", 3, rooms=1, fragments_per_room=1, layout="test", workers=1, frames=40)  # fmt: skip
        make_creatures(root / "people", 4, count=2, poses=1, families=["humanoid"], vertices=4000, workers=1)  # fmt: skip
        rooms = sparsefeat.FeatureExtractor.from_pretrained("sparsefeat/rooms-5cm-oriented-v1")
        scan = read_points(root / "rooms" / "room-0000" / "cloud_bin_0.ply").points
        of_scan = rooms(scan, "trilinear", viewpoint=(0, 0, 0), scales=(1, 1.6))
        render_points([scan], [PcaColors.fit([of_scan])(of_scan)], root / "scan.png", cut_open=True)
        people = [shape.load() for shape in load_dataset("folder", root / "people").shapes]
        of_people = [
            sparsefeat.describe(body, ("ours",), rooms, balanced=False, views=2) for body in people
        ]
        colors = PcaColors.fit(of_people)
        render_meshes(
            [(body.vertices, body.faces, colors(f)) for body, f in zip(people, of_people)],
            root / "people.png",
        )
        figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(1.2, 1))
        for axes, name, title in zip(
            panels, ("scan.png", "people.png"), ("a scan of a room", "two people")
        ):
            picture = plt.imread(root / name)[..., :3]
            drawn = (picture < 0.99).any(2)
            rows, columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
            axes.imshow(picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
            axes.set_title(title)
            axes.set_axis_off()
        figure.tight_layout()
        _save("transfer.jpg")


def _save(name: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    # Shaded colours are a fifth as large in a JPEG.
    options = {"metadata": {"Date": None}}
    if name.endswith("jpg"):
        options = {"dpi": 100, "pil_kwargs": {"quality": 88, "optimize": True}}
    plt.savefig(FOLDER / name, bbox_inches="tight", **options)
    plt.close("all")
    print(FOLDER / name, (FOLDER / name).stat().st_size // 1000, "kB")


FIGURES = (kernel_map, pairs, receptive_field, ladder, cycle, transfer)

if __name__ == "__main__":
    for draw in FIGURES:
        if len(sys.argv) == 1 or draw.__name__ in sys.argv[1:]:
            draw()
