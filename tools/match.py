#!/usr/bin/env python3
"""Find where scans fit: two files give a pose, a folder the poses of all its scans."""

from sparsefeat.cli.match import main

if __name__ == "__main__":  # worker processes may import this file
    raise SystemExit(main())
