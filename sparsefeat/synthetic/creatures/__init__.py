"""Posed creatures from a seed: people, animals and hands with exact correspondence and part labels."""

from sparsefeat.synthetic.creatures.creature import Creature, make_creature
from sparsefeat.synthetic.creatures.dataset import SETTINGS, contact_sheet, make_creatures
from sparsefeat.synthetic.creatures.families import FAMILIES, KINDS, PART_NAMES

__all__ = [
    "FAMILIES", "KINDS", "PART_NAMES", "SETTINGS", "Creature", "contact_sheet", "make_creature", "make_creatures",
]  # fmt: skip
