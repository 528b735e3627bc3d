"""The ERP's extract files: found by ``discovery`` in a ``storage``, read by ``formats``, landed by ``loading``."""

from include.instore.sources.extracts.loading import Loaded, load_extracts
from include.instore.sources.extracts.storage import Storage

__all__ = ["Loaded", "Storage", "load_extracts"]
