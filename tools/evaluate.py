#!/usr/bin/env python3
"""Measure features: `matching` gives feature-match recall and inlier ratio on pairs of fragments."""

from sparsefeat.cli.evaluate import main

if __name__ == "__main__":  # worker processes may import this file
    raise SystemExit(main())
