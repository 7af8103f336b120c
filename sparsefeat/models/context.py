"""Attention between the points of a coarse level: each sees all others within reach, however the shape is turned.

Convolutions reach far only through many layers, so that what lies far away adds little to a feature. Here every
point of a level weighs all others at once (Vaswani et al., Attention is all you need, NeurIPS 2017). How two points lie
to each other enters keys and values as rotation-invariant functions of the pair, as in GeoTransformer (Qin et al.,
CVPR 2022): of their distance, and of the angles between the line that joins them and both normals.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefeat.errors import InputError
from sparsefeat.models.levels import Level, PointTensor

CELLS = 16
"""How far a point sees, in cells of its level."""
RADIAL = 5
"""Functions of distance; their centres lie at 0, 1, 3, 7 and 15 cells."""
RELATIONS = 5
"""Functions of direction for each of them."""
TRIPLES = 32
"""Triple products of directions that a block makes."""
_HEAD = 32
"""Channels of an attention head."""
_LENGTH = 4.0
"""Cells that count as far in a direction."""
_APART = 1e-2
"""Cells between two points below which the direction from one to the other fades."""
_UNSEEN = 1e-12
"""Weight of a point that is not in sight, beside 1 for one that is near."""
_AT_ONCE = 1 << 21
"""Pairs of points whose functions are held at a time."""


class _Points(NamedTuple):
    """Points of one cloud on one level: positions in cells, normals and weights. Shape: (3, V), (3, V), (V,)."""

    position: Tensor
    normal: Tensor
    weight: Tensor

    def at(self, rows: Tensor) -> _Points:
        return _Points(self.position[:, rows], self.normal[:, rows], self.weight[rows])


def relations(points: _Points, others: _Points) -> tuple[Tensor, Tensor]:
    """How others lie to points.

    Returns:
        The functions of each pair, none of which a rotation changes. Shape: (Q, V, RADIAL * RELATIONS)
        The logarithm of how much of the other is in sight, which ends at CELLS. Shape: (Q, V)
    """
    here, up = points.position[:, :, None], points.normal[:, :, None]
    line = others.position[:, None] - here
    distance = (line * line).sum(0).clamp(min=1e-12).sqrt()
    # A point has no direction to itself; a slope of 1e6 there would cancel in float64 alone.
    ray = line / distance.clamp(min=_APART)
    there = others.normal[:, None].expand_as(line)
    angles = [
        torch.ones_like(distance),
        (up * ray).sum(0),
        (there * ray).sum(0),
        (there * up).sum(0),
        # The triple product changes its sign in a mirror: all others are the same for left and right.
        (ray * torch.linalg.cross(up.expand_as(line), there, dim=0)).sum(0),
    ]
    # Hats on a logarithmic scale: they add up to one, and near distances are told apart more finely than far ones.
    octave = torch.log2(1 + distance)
    hats = [(1 - (octave - centre).abs()).clamp(min=0) for centre in range(RADIAL)]
    functions = (torch.stack(hats, -1)[..., None] * torch.stack(angles, -1)[..., None, :]).flatten(
        -2
    )
    sight = (1 - (distance / CELLS).square()).clamp(min=0).square() * others.weight
    return functions, sight.clamp(min=_UNSEEN).log()


class _Piece(NamedTuple):
    """Points that are computed together: who they are, whom they see, and how these lie to them."""

    rows: Tensor
    seen: Tensor
    points: _Points
    others: _Points
    functions: Tensor
    sight: Tensor


class _Pieces:
    """The points of a cloud in pieces; their relations are made once where they are few, else again for every block."""

    def __init__(self, points: _Points):
        self.points = points
        count = points.weight.shape[0]
        rows = torch.arange(count, device=points.weight.device)
        self.kept = [self._piece(rows, rows)] if count * count <= _AT_ONCE else None

    def __iter__(self) -> Iterator[_Piece]:
        if self.kept is not None:
            yield from self.kept
            return
        position = self.points.position
        # Cubes as wide as the sight; what lies farther from a cube than that is out of sight for all of its points.
        cubes = (position / CELLS).floor().long()
        _, number = torch.unique(cubes, dim=1, return_inverse=True)
        order = number.argsort(stable=True)
        for rows in order.split(torch.bincount(number).tolist()):
            own = position[:, rows]
            low, high = own.amin(1, keepdim=True) - CELLS, own.amax(1, keepdim=True) + CELLS
            seen = ((position >= low) & (position <= high)).all(0).nonzero()[:, 0]
            for some in rows.split(max(1, _AT_ONCE // len(seen))):
                yield self._piece(some, seen)

    def _piece(self, rows: Tensor, seen: Tensor) -> _Piece:
        points, others = self.points.at(rows), self.points.at(seen)
        return _Piece(rows, seen, points, others, *relations(points, others))


class ContextBlock(nn.Module):
    """Attention and two pointwise layers, each after layer norm and added to its input. Shape: (V, C) -> (V, C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.heads = channels // _HEAD
        self.norm1 = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels)
        self.relation_key = nn.Parameter(torch.zeros(self.heads, _HEAD, RADIAL * RELATIONS))
        self.relation_bias = nn.Parameter(torch.zeros(self.heads, RADIAL * RELATIONS))
        self.relation_value = nn.Parameter(torch.empty(self.heads, RADIAL * RELATIONS, _HEAD))
        nn.init.normal_(self.relation_key, std=(RADIAL * RELATIONS) ** -0.5)
        nn.init.normal_(self.relation_value, std=(RADIAL * RELATIONS) ** -0.5)
        self.direction = nn.Parameter(torch.empty(3, TRIPLES, 2 * self.heads + 1))
        nn.init.normal_(self.direction, std=(2 * self.heads + 1) ** -0.5)
        self.out = nn.Linear(channels + 4 * TRIPLES, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.wide = nn.Linear(channels, 2 * channels)
        self.narrow = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor, pieces: _Pieces) -> Tensor:
        y = self.norm1(x)
        query, key, value = (
            layer(y).view(len(y), self.heads, _HEAD) for layer in (self.query, self.key, self.value)
        )
        parts, rows = [], []
        for piece in pieces:
            parts.append(self._attend(query[piece.rows], key[piece.seen], value[piece.seen], piece))
            rows.append(piece.rows)
        found = torch.cat(parts)
        if len(rows) > 1:
            found = torch.zeros_like(found).index_copy(0, torch.cat(rows), found)
        x = x + self.out(found)
        return x + self.narrow(F.relu(self.wide(self.norm2(x))))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, piece: _Piece) -> Tensor:
        """Shape: (Q, H, C), (V, H, C), (V, H, C), piece of Q points that see V -> (Q, H * C + 4 * TRIPLES)."""
        # What a query asks of the relation, so that keys need not be made for each pair.
        asked = torch.einsum("qhc,hck->qhk", query, self.relation_key) + self.relation_bias
        functions = piece.functions.to(asked)
        logits = torch.einsum("qhc,vhc->qhv", query, key) + asked @ functions.transpose(1, 2)
        share = (logits * _HEAD**-0.5 + piece.sight[:, None]).softmax(-1)
        given = share.to(value)
        relation = given @ functions
        found = torch.einsum("qhv,vhc->qhc", given, value) + torch.einsum(
            "qhk,hkc->qhc", relation, self.relation_value
        )
        # Not in half precision: places are differences of large numbers.
        with torch.autocast(share.device.type, enabled=False):
            products = self._products(share, piece)
        return torch.cat([found.flatten(1), products.to(found)], 1)

    def _products(self, share: Tensor, piece: _Piece) -> Tensor:
        """Products of directions: where what a head looks at lies, which way that faces, and the own normal.

        Three sums of these vectors with learned weights, of a length below 1, have a triple product, which changes its
        sign in a mirror, and three inner products. Shape: (Q, H, V), ... -> (Q, 4 * TRIPLES)
        """
        here, others = piece.points, piece.others
        lines = (share @ others.position.t() - here.position.t()[:, None]) / _LENGTH
        vectors = torch.cat([lines, share @ others.normal.t(), here.normal.t()[:, None]], 1)
        a, b, c = torch.einsum("smh,qhx->sqmx", self.direction.to(vectors), vectors)
        a, b, c = (v * (1 + (v * v).sum(-1, keepdim=True)).rsqrt() for v in (a, b, c))
        triple = (torch.linalg.cross(a, b) * c).sum(-1)
        return torch.cat([triple, *((v * w).sum(-1) for v, w in ((a, b), (b, c), (c, a)))], 1)


class Context(nn.Module):
    """Blocks of attention beside a level's features: what they find is added. Rows and channels stay.

    New ones add nothing: the last layer starts at zero. ``side`` of the output says of each point how far it is on the
    left of a body, as a logit; it is for training. Shape: (V,)

    Args:
        channels: of the level.
        blocks: one after the other.
        width: their channels, a multiple of 32.
    """

    def __init__(self, channels: int, blocks: int, width: int = 128):
        super().__init__()
        if width % _HEAD:
            raise InputError(f"context: its width must be a multiple of {_HEAD}, got {width}")
        self.cells = CELLS * blocks
        self.enter = nn.Linear(channels, width)
        self.blocks = nn.ModuleList(ContextBlock(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, channels)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.side = nn.Linear(width, 1)

    def forward(self, x: PointTensor) -> PointTensor:
        level = x.levels(x.manager, x.key)
        added = torch.zeros_like(x.features)
        side = added.new_zeros(len(added))
        for rows in _clouds(x):
            points = _points(level, rows, float(max(x.tensor_stride)))
            y = self.enter(x.features[rows])
            pieces = _Pieces(points)
            for block in self.blocks:
                y = block(y, pieces)
            y = self.norm(y)
            added = added.index_copy(0, rows, self.leave(y).to(added))
            if self.training:
                side = side.index_copy(0, rows, self.side(y)[:, 0].to(side))
        out = x.replace(x.features + added)
        out.side = side
        return out


def _clouds(x: PointTensor) -> list[Tensor]:
    """Rows of each cloud. Shape: (V_b,) each."""
    clouds = x.manager[x.key].clouds
    if len(clouds.indices) == 1:
        # Nothing that depends on the data: so a network on one cloud can be traced.
        return [torch.arange(len(x), device=x.device)]
    return [(clouds.rows == number).nonzero()[:, 0] for number in range(len(clouds.indices))]


def _points(level: Level, rows: Tensor, stride: float) -> _Points:
    position, normal = level.position[:, rows] / stride, level.normal
    normal = torch.zeros_like(position) if normal is None else normal[:, rows]
    return _Points(position, normal, level.weight[rows])
