#!/usr/bin/env python3
"""Pretrain a backbone: tools/pretrain.py CONFIG.yaml [key=value ...]."""

from sparsefeat.cli.pretrain import main

if __name__ == "__main__":  # worker processes may import this file
    raise SystemExit(main())
