"""An orthographic renderer for point clouds: depth-tested splats, surface shading, dark depth edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from sparsefeat.errors import InputError

# (up, direction from the object to a viewer at azimuth 0), by the name of the axis that points up.
AXES = {
    "x": ((1, 0, 0), (0, 0, 1)),
    "y": ((0, 1, 0), (0, 0, 1)),
    "z": ((0, 0, 1), (0, -1, 0)),
    "-x": ((-1, 0, 0), (0, 0, -1)),
    "-y": ((0, -1, 0), (0, 0, -1)),
    "-z": ((0, 0, -1), (0, -1, 0)),
}
# Neighbours that a normal is fitted to, and the number of points above which it would take too long.
_NORMAL_NEIGHBOURS = 16
_MAX_SHADED = 1_500_000
# Pixels are computed this much finer along both axes and averaged.
_OVERSAMPLE = 2
# As a share of the picture's width. A sparser cloud is drawn as separate dots rather than as blobs.
_MAX_RADIUS = 0.012


@dataclass(frozen=True)
class View:
    """Where a cloud is looked at from.

    Attributes:
        azimuth_deg: turn of the viewer about the vertical.
        elevation_deg: height of the viewer over the horizon.
        up: the axis that points up: x, y, z, -x, -y or -z. Depth cameras have "-y" and look along +z,
            which is azimuth 0 here.
    """

    azimuth_deg: float = 0.0
    elevation_deg: float = 0.0
    up: str = "z"

    def axes(self) -> np.ndarray:
        """Rows: right, up and towards the viewer. Shape: (3, 3)."""
        if self.up not in AXES:
            raise InputError(f"view: up: expected one of {', '.join(AXES)}, got {self.up!r}")
        up, front = (np.array(a, dtype=float) for a in AXES[self.up])
        azimuth, elevation = np.radians([self.azimuth_deg, self.elevation_deg])
        level = np.cos(azimuth) * front + np.sin(azimuth) * np.cross(up, front)
        towards = np.cos(elevation) * level + np.sin(elevation) * up
        right = np.cross(up, level)
        return np.stack([right, np.cross(towards, right), towards])


# Over the shoulder of a depth camera, into what it saw.
CAMERA_VIEW = View(azimuth_deg=-20.0, elevation_deg=25.0, up="-y")


@dataclass(frozen=True)
class Frame:
    """What part of the picture plane is seen, in metres, and at what resolution.

    Attributes:
        center: (2,) right and up.
        metres_per_pixel: of the finished picture.
        width: pixels.
        height: pixels.
    """

    center: np.ndarray
    metres_per_pixel: float
    width: int
    height: int

    def pixels(self, plane: np.ndarray) -> np.ndarray:
        """Pixel positions (column, row), fractional, of positions in the plane. Shape: (N, 2) -> (N, 2)."""
        offset = (plane - self.center) / self.metres_per_pixel
        return np.stack([self.width / 2 + offset[:, 0], self.height / 2 - offset[:, 1]], 1)


def fit_frame(
    planes: list[np.ndarray], width: int, height: int, margin: float = 0.04
) -> list[Frame]:
    """Frames of one scale in which every cloud, centred on its own, fits. ``planes``: (N_k, 2) each."""
    bounds = [(p.min(0), p.max(0)) for p in planes]
    usable = np.array([width, height]) * (1 - 2 * margin)
    scale = max(float(((high - low) / usable).max()) for low, high in bounds)
    scale = scale if scale > 0 else 1e-3
    return [Frame((low + high) / 2, scale, width, height) for low, high in bounds]


def estimate_normals(points: np.ndarray, neighbours: int = _NORMAL_NEIGHBOURS) -> np.ndarray:
    """Unit normals, of arbitrary sign, from the nearest points. Shape: (N, 3) -> (N, 3)."""
    count = min(neighbours, len(points))
    if count < 3:
        return np.tile([0.0, 0.0, 1.0], (len(points), 1))
    tree = cKDTree(points)
    normals = np.empty((len(points), 3))
    for start in range(0, len(points), 50_000):
        rows = slice(start, start + 50_000)
        near = points[tree.query(points[rows], count)[1]]
        near -= near.mean(1, keepdims=True)
        normals[rows] = np.linalg.eigh(np.einsum("nki,nkj->nij", near, near))[1][:, :, 0]
    return normals


def disc_radius(points: np.ndarray) -> float:
    """Radius of discs that close a surface; 0 for one point.

    On a square grid half the diagonal of its cells would do. Points at random leave gaps of twice their mean
    distance, and are told by how much nearer their first neighbour is than their fourth.
    """
    neighbours = min(5, len(points))
    if neighbours < 2:
        return 0.0
    rows = np.linspace(0, len(points) - 1, min(2000, len(points))).astype(int)
    distances = cKDTree(points).query(points[rows], neighbours)[0]
    first, last = np.median(distances[:, 1]), np.median(distances[:, -1])
    if last == 0:
        return 0.0
    # The ratio is 1 on a grid, and 0.43 on average for points at random in a plane.
    order = np.clip((first / last - 0.43) / 0.57, 0, 1)
    return float(last * (1.15 - 0.40 * order))


def rasterize(
    points: np.ndarray,
    colors: np.ndarray,
    view: View,
    frame: Frame,
    radius: float,
    background: tuple[float, float, float],
    shade: bool = True,
) -> np.ndarray:
    """Draw one cloud.

    Args:
        points: Shape (N, 3), metres.
        colors: Shape (N, 3) in [0, 1].
        view: direction of sight.
        frame: the part of the picture plane that is drawn.
        radius: of a point, metres.
        background: colour in [0, 1].
        shade: light the surface, by normals from neighbouring points, and darken depth edges.

    Returns:
        (height, width, 3) float64 in [0, 1].
    """
    axes = view.axes()
    seen = points @ axes.T
    if shade and len(points) <= _MAX_SHADED:
        colors = np.clip(colors * brightness(estimate_normals(points) @ axes.T)[:, None], 0, 1)
    fine = Frame(
        frame.center,
        frame.metres_per_pixel / _OVERSAMPLE,
        frame.width * _OVERSAMPLE,
        frame.height * _OVERSAMPLE,
    )
    radius_px = float(
        np.clip(radius / fine.metres_per_pixel, 1.0, max(1.0, _MAX_RADIUS * fine.width))
    )
    image, depth = _splat(fine, seen, colors, radius_px, radius)
    _close_pinholes(image, depth)
    covered = np.isfinite(depth)
    if shade:
        extent = frame.metres_per_pixel * max(frame.width, frame.height)
        image *= edge_darkening(depth, radius, extent)[..., None]
    image = np.where(covered[..., None], image, background)
    shape = (frame.height, _OVERSAMPLE, frame.width, _OVERSAMPLE, 3)
    return np.clip(image.reshape(shape).mean((1, 3)), 0, 1)


def brightness(normals: np.ndarray) -> np.ndarray:
    """Brightness under a light from the upper left, over the viewer's shoulder. (N, 3) -> (N,)."""
    light = np.array([-0.45, 0.6, 0.66])
    # Normals have no side here: turn them to the viewer.
    facing = normals * np.where(normals[:, 2:] < 0, -1.0, 1.0)
    return 0.68 + 0.40 * np.clip(facing @ (light / np.linalg.norm(light)), 0, 1)


def _splat(frame: Frame, seen: np.ndarray, colors: np.ndarray, radius_px: float, radius: float):
    """Blend, in every pixel, the discs at its front surface. Returns colours and depths (inf: background)."""
    width, height = frame.width, frame.height
    centre = frame.pixels(seen[:, :2])
    distance = -seen[:, 2]
    corner = np.floor(centre).astype(np.int64)
    reach = int(np.ceil(radius_px))
    offsets = [(dx, dy) for dx in range(-reach, reach + 1) for dy in range(-reach, reach + 1)]

    def discs():
        for dx, dy in offsets:
            x, y = corner[:, 0] + dx, corner[:, 1] + dy
            r2 = ((x + 0.5 - centre[:, 0]) ** 2 + (y + 0.5 - centre[:, 1]) ** 2) / radius_px**2
            hit = (r2 <= 1) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
            yield np.flatnonzero(hit), (y * width + x)[hit], r2[hit]

    front = np.full(width * height, np.inf)
    for rows, pixels, _ in discs():
        np.minimum.at(front, pixels, distance[rows])
    values = np.concatenate([colors.T, distance[None]])
    total = np.zeros((4, width * height))
    weights = np.zeros(width * height)
    for rows, pixels, r2 in discs():
        near = distance[rows] <= front[pixels] + 2 * radius
        rows, pixels = rows[near], pixels[near]
        weight = np.exp(-3 * r2[near])
        np.add.at(weights, pixels, weight)
        for channel in range(4):
            np.add.at(total[channel], pixels, weight * values[channel, rows])
    total /= np.maximum(weights, 1e-12)
    depth = np.where(weights > 0, total[3], np.inf)
    return total[:3].T.reshape(height, width, 3), depth.reshape(height, width)


def _close_pinholes(image: np.ndarray, depth: np.ndarray) -> None:
    """Fill, in place, empty pixels of a surface that is seen so obliquely that its discs leave gaps."""
    covered = np.isfinite(depth)
    share = uniform_filter(covered.astype(np.float64), 5)
    holes = ~covered & (share > 0.7)
    if not holes.any():
        return
    for layer in (*np.moveaxis(image, -1, 0), depth):
        layer[holes] = uniform_filter(np.where(covered, layer, 0.0), 5)[holes] / share[holes]


def edge_darkening(depth: np.ndarray, radius: float, extent: float) -> np.ndarray:
    """Eye-dome lighting: a pixel is darker the more its neighbours are in front of it.

    Source: Boucheny, "Interactive scientific visualization of large datasets", PhD thesis, 2009.
    """
    known = np.isfinite(depth)
    own = np.where(known, depth, 0.0)
    limit = 0.03 * extent
    response = np.zeros(depth.shape)
    for step, weight in ((2, 1.0), (5, 0.7)):
        padded = np.pad(np.where(known, depth, np.inf), step, constant_values=np.inf)
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            y, x = step * (1 + dy), step * (1 + dx)
            neighbour = padded[y : y + depth.shape[0], x : x + depth.shape[1]]
            # Steps below a point's own size are grain of the cloud, not an edge.
            response += weight * np.clip(own - neighbour - 1.5 * radius, 0, limit)
    return np.where(known, np.exp(-1.6 * response / (8 * limit)), 1.0)
