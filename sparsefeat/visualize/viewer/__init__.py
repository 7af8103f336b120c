"""One page that shows clouds, meshes, features, matches, maps and labels: served, written, or in a notebook."""

from sparsefeat.visualize.viewer.layers import Matches, ReceptiveField
from sparsefeat.visualize.viewer.page import Page
from sparsefeat.visualize.viewer.view import view

__all__ = ["Matches", "Page", "ReceptiveField", "view"]
