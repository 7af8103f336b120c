"""Pictures without a display: feature colours on a common basis, clouds, matches, curves."""

from sparsefeat.visualize.colors import PcaColors, pca_colors
from sparsefeat.visualize.figures import draw_matches, plot_curves, render_points
from sparsefeat.visualize.raster import CAMERA_VIEW, View

__all__ = ["CAMERA_VIEW", "PcaColors", "View", "draw_matches", "pca_colors", "plot_curves", "render_points"]
