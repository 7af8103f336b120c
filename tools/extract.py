#!/usr/bin/env python3
"""Write the features of point clouds: numbers (npz), colours (ply) and one picture (png)."""

from sparsefeat.cli.extract import main

if __name__ == "__main__":  # worker processes may import this file
    raise SystemExit(main())
