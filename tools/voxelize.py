#!/usr/bin/env python3
"""Write the voxels that meshes touch (npz) and one picture of them (png)."""

from sparsefeat.cli.voxelize import main

if __name__ == "__main__":  # worker processes may import this file
    raise SystemExit(main())
