#!/usr/bin/env python3
import sys

from sparsefeat.cli.match import main

if __name__ == "__main__":
    sys.exit(main())
