"""Pictures of an evaluation: curves over both thresholds, and the matches of single pairs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sparsefeat.data.fragments import load_fragment
from sparsefeat.data.orientation import Viewpoints
from sparsefeat.data.threedmatch import FragmentPair
from sparsefeat.evaluate.keypoints import Describe, FragmentDescriber
from sparsefeat.evaluate.matching import MatchingResult, match_distances, match_fragments
from sparsefeat.visualize import CAMERA_VIEW, View, draw_matches, plot_curves


def plot_thresholds(results: Mapping[str, MatchingResult], folder: str | os.PathLike) -> list[Path]:
    """Curves of FMR and IR over tau1 and of FMR over tau2, one line per descriptor.

    Args:
        results: label -> result, all with the same thresholds.
        folder: must exist; gets ``fmr_over_tau1.png``, ``ir_over_tau1.png``, ``fmr_over_tau2.png`` and the
            same with ``_mutual``.

    Returns:
        The files.
    """
    folder = Path(folder)
    settings = next(iter(results.values())).settings
    tau1, tau2 = settings["tau1"], settings["tau2"]
    marks = {"tau1": {f"τ1 = {tau1:g} m": tau1}, "tau2": {f"τ2 = {tau2:g}": tau2}}
    over1 = "inlier threshold τ1 [m]"
    written = []
    for mutual in (False, True):
        suffix, kind = ("_mutual", "mutual matches") if mutual else ("", "nearest neighbours")
        curves1 = {label: result.curve_over_tau1(mutual) for label, result in results.items()}
        curves2 = {label: result.curve_over_tau2(mutual) for label, result in results.items()}
        plots = (
            ("fmr_over_tau1", "FMR", "tau1", curves1, over1, "feature-match recall"),
            ("ir_over_tau1", "IR", "tau1", curves1, over1, "inlier ratio"),
            (
                "fmr_over_tau2",
                "FMR",
                "tau2",
                curves2,
                "inlier-ratio threshold τ2",
                "feature-match recall",
            ),
        )
        for name, metric, axis, curves, xlabel, ylabel in plots:
            path = folder / f"{name}{suffix}.png"
            lines = {label: (curve[axis], curve[metric]) for label, curve in curves.items()}
            title = f"{ylabel.capitalize()}, {kind}"
            plot_curves(lines, path, xlabel, ylabel, title=title, marks=marks[axis])
            written.append(path)
    return written


def draw_pair(
    pair: FragmentPair,
    describe: Describe,
    voxel_size: float,
    path: str | os.PathLike,
    points: int = 5000,
    tau1: float = 0.10,
    seed: int = 0,
    mutual: bool = False,
    dense: bool = False,
    title: str | None = None,
    view: View = CAMERA_VIEW,
    background: str = "white",
    viewpoints: Viewpoints | None = None,
    salient: bool = False,
    orientation: str = "given",
    rotate: bool = False,
) -> float:
    """Draw the matches of one pair, inliers green, as :func:`evaluate_matching` finds them.

    Args:
        pair: source on the left, target on the right.
        describe, voxel_size, points, tau1, seed, dense, viewpoints, salient, orientation, rotate: as in
            :func:`evaluate_matching`.
        path: the PNG.
        mutual: only mutual nearest neighbours.
        title, view, background: as in :func:`sparsefeat.visualize.draw_matches`.

    Returns:
        The inlier ratio of the matches.
    """
    describer = FragmentDescriber(
        describe,
        voxel_size,
        points,
        seed,
        rotate,
        dense,
        viewpoints=viewpoints,
        salient=salient,
        orientation=orientation,
    )
    source, target = describer(pair.scene, pair.source), describer(pair.scene, pair.target)
    matches, both_ways = match_fragments(source, target)
    if mutual:
        matches = matches[both_ways]
    transform = target.rotation @ pair.transform @ source.rotation.T
    inliers = match_distances(source.points, target.points, matches, transform) < tau1
    clouds = (
        np.asarray(load_fragment(pair.source)) @ source.rotation[:3, :3].T,
        np.asarray(load_fragment(pair.target)) @ target.rotation[:3, :3].T,
    )
    draw_matches(
        source.points,
        target.points,
        matches,
        inliers,
        path,
        clouds=clouds,
        title=title or f"{pair.scene}: {Path(pair.source).stem} to {Path(pair.target).stem}",
        view=view,
        background=background,
    )
    return float(inliers.mean()) if len(inliers) else 0.0
