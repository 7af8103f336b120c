#!/usr/bin/env python3
"""Transfer pretrained features to shapes: one configuration is one experiment."""

from sparsefeat.cli.transfer import main

if __name__ == "__main__":  # worker processes may import this file
    raise SystemExit(main())
