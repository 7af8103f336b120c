"""What happens to shapes outside of data sets: they are cut, seen from one side, scanned, merged, noisy, bent.

Meshes: :func:`damage_mesh` takes a mesh, the name of a damage (:data:`DAMAGES`) and a seed; the function of each name
is here, too. Points with normals: :func:`cut`, :func:`one_view`, :func:`noise`, :func:`sparse_cloud`, :func:`fuse` and
:func:`bend`.
"""

from sparsefeat.synthetic.damage.meshes import (
    DAMAGES,
    DamagedMesh,
    Ends,
    bridges,
    cloud,
    cut_mesh,
    damage_mesh,
    fusion,
    part_ends,
    remesh,
    tip_ends,
    view_mesh,
)
from sparsefeat.synthetic.damage.points import (
    Damaged,
    bend,
    cut,
    fuse,
    noise,
    one_view,
    sparse_cloud,
)

__all__ = [
    "DAMAGES", "Damaged", "DamagedMesh", "Ends", "bend", "bridges", "cloud", "cut", "cut_mesh", "damage_mesh", "fuse",
    "fusion", "noise", "one_view", "part_ends", "remesh", "sparse_cloud", "tip_ends", "view_mesh",
]  # fmt: skip
