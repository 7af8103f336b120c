"""Pictures without a display: feature colours on a common basis, clouds, meshes, matches, curves, matrices."""

from sparsefeat.visualize.colors import PcaColors, pca_colors
from sparsefeat.visualize.figures import draw_matches, plot_curves, render_points
from sparsefeat.visualize.matrices import plot_matrix, plot_scores
from sparsefeat.visualize.meshes import render_meshes
from sparsefeat.visualize.palette import class_colors
from sparsefeat.visualize.raster import CAMERA_VIEW, View
from sparsefeat.visualize.spreads import plot_spreads

__all__ = [
    "CAMERA_VIEW",
    "PcaColors",
    "View",
    "class_colors",
    "draw_matches",
    "pca_colors",
    "plot_curves",
    "plot_matrix",
    "plot_scores",
    "plot_spreads",
    "render_meshes",
    "render_points",
]
