#!/usr/bin/env python3
"""Published results: render them into documents, list them, or measure one again."""

from sparsefeat.cli.results import main

if __name__ == "__main__":
    raise SystemExit(main())
