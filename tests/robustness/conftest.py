"""The modules of this folder are imported by name, as they are where the fuzzer runs as a program."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
