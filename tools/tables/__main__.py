"""`python -m tools.tables [FOLDER]`: writes the tables of the documents there (default: this checkout)."""

import sys
from pathlib import Path

from tools.tables import ROOT, main

sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT))
