#!/usr/bin/env python3
"""Measure the engine's speed, beside other engines that are installed and beside the bare matrix products."""

from sparsefeat.cli.benchmark import main

if __name__ == "__main__":  # worker processes may import this file
    raise SystemExit(main())
