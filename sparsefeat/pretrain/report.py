"""What a finished run shows: a table, curves, features and matches as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import nn

from sparsefeat.data.threedmatch import FragmentPair
from sparsefeat.evaluate.keypoints import FragmentDescriber
from sparsefeat.evaluate.pictures import draw_pair as draw_matches_of
from sparsefeat.extract import FeatureExtractor
from sparsefeat.pretrain.config import PretrainConfig
from sparsefeat.pretrain.log import read_log
from sparsefeat.visualize import pca_colors, plot_curves, render_points


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """FMR and IR, with and without mutual check, one line per result; numbers as the log has them."""
    width = max(len(name) for name in rows)
    lines = [f"{'':{width}}     FMR      IR   FMR mutual   IR mutual"]
    for name, row in rows.items():
        fmr, ir, fmr_mutual, ir_mutual = (
            row.get(key, math.nan) for key in ("FMR", "IR", "FMR_mutual", "IR_mutual")
        )
        lines.append(
            f"{name:{width}}   {fmr:.3f}   {ir:.3f}        {fmr_mutual:.3f}       {ir_mutual:.3f}"
        )
    return "\n".join(lines)


def draw_curves(output: Path) -> list[Path]:
    """Loss and held-out FMR and IR over steps, as PNG; returns the files."""
    steps, validations = read_log(output)
    files = []
    if steps:
        number = np.array([line["step"] for line in steps])
        loss = np.array([line["loss"] for line in steps])
        window = max(1, len(loss) // 50)
        smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
        files.append(output / "loss.png")
        plot_curves(
            {f"mean of {window} steps": (number[window - 1 :], smooth)},
            files[-1],
            "step",
            "loss",
            title="Pretraining loss",
        )
    if validations:
        number = [line["step"] for line in validations]
        shares = [name for name in ("FMR", "IR", "hits") if name in validations[0]["validation"]]
        curves = {
            name: (number, [line["validation"][name] for line in validations]) for name in shares
        }
        files.append(output / "matching.png")
        plot_curves(curves, files[-1], "step", "share", title="Held-out matching", ylim=(0, 1))
    return files


def draw_pair(
    output: Path, model: nn.Module, config: PretrainConfig, pair: FragmentPair
) -> list[Path]:
    """Features of a pair as colours on a common basis, and its matches; returns the files."""
    describe = FeatureExtractor(model, config.voxel_size)
    dense = config.voxel_points == "mean"
    describer = FragmentDescriber(describe, config.voxel_size, None, config.seed, dense=dense)
    target, source = describer(pair.scene, pair.target), describer(pair.scene, pair.source)
    colors = pca_colors([target.features, source.features])
    features = output / "features.png"
    render_points(
        [target.points, source.points],
        colors,
        features,
        titles=[pair.target.stem, pair.source.stem],
    )
    picture = output / "matches.png"
    points = config.data.validation_points
    draw_matches_of(
        pair, describe, config.voxel_size, picture, points, seed=config.seed, dense=dense
    )
    return [features, picture]
