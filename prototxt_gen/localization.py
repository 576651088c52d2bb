"""The former name of `prototxt_gen.localisation`. Importing it gives that module and a warning."""

import sys
import warnings

from prototxt_gen import localisation

warnings.warn(
    "prototxt_gen.localization is deprecated; import prototxt_gen.localisation",
    DeprecationWarning,
    stacklevel=2,
)
sys.modules[__name__] = localisation
