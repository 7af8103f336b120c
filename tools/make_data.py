#!/usr/bin/env python3
"""Make data: `rooms` and `creatures` from a seed, `fuse` from a recorded RGB-D sequence."""

from sparsefeat.cli.make_data import main

if __name__ == "__main__":  # worker processes may import this file
    raise SystemExit(main())
