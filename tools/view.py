#!/usr/bin/env python3
"""Look at clouds and meshes, their features and labels, in a browser."""

from sparsefeat.cli.view import main

if __name__ == "__main__":
    raise SystemExit(main())
