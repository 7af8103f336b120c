"""Pieces of furniture: each function makes one, its back towards -y, standing on z = 0 about the origin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsefeat.synthetic.furniture.beds import bed
from sparsefeat.synthetic.furniture.fittings import kitchen, toilet, washbasin
from sparsefeat.synthetic.furniture.pieces import Piece
from sparsefeat.synthetic.furniture.seats import chair, office_chair, sofa, stool
from sparsefeat.synthetic.furniture.standing import (
    bicycle,
    big_plant,
    coat_rack,
    dustbin,
    floor_lamp,
    ladder,
    rug,
)
from sparsefeat.synthetic.furniture.storage import (
    bookshelf,
    cabinet,
    fridge,
    stand_of_boxes,
    tv_stand,
)
from sparsefeat.synthetic.furniture.tables import desk, pegboard, table

__all__ = ["WALL", "chair", "desk", "office_chair", "rug", "table"]

Rng = np.random.Generator

WALL: dict[str, tuple[tuple[Callable[[Rng], Piece], float], ...]] = {
    "living": (
        (sofa, 3),
        (bookshelf, 3),
        (tv_stand, 2),
        (cabinet, 2),
        (floor_lamp, 1),
        (big_plant, 1.5),
        (table, 1),
        (desk, 1),
        (stand_of_boxes, 0.5),
        (bicycle, 0.3),
    ),
    "bed": (
        (bed, 4),
        (cabinet, 3),
        (bookshelf, 1.5),
        (desk, 1.5),
        (coat_rack, 1),
        (floor_lamp, 1),
        (tv_stand, 1),
        (big_plant, 0.7),
        (chair, 1),
        (stand_of_boxes, 0.5),
    ),
    "kitchen": (
        (kitchen, 5),
        (fridge, 2),
        (cabinet, 1.5),
        (table, 1),
        (dustbin, 1),
        (stool, 1),
        (bookshelf, 1),
        (big_plant, 0.5),
    ),
    "office": (
        (desk, 5),
        (bookshelf, 3),
        (cabinet, 2),
        (stand_of_boxes, 1),
        (coat_rack, 0.7),
        (big_plant, 1),
        (dustbin, 1),
        (office_chair, 1),
        (bicycle, 0.5),
    ),
    "workshop": (
        (pegboard, 4),
        (bookshelf, 2),
        (stand_of_boxes, 2),
        (ladder, 1),
        (cabinet, 1),
        (bicycle, 1),
        (desk, 1),
        (stool, 1),
    ),
    "bath": (
        (washbasin, 3),
        (toilet, 3),
        (cabinet, 2),
        (coat_rack, 0.5),
        (dustbin, 1),
        (stool, 0.7),
        (bookshelf, 0.7),
    ),
}
