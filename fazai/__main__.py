"""python -m fazai"""

import sys

from fazai.cli import main

sys.exit(main())
