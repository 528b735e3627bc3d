"""The ERP's extract files: found by ``discovery``, read by a format of ``formats``, landed by ``loading``."""

from include.instore.extracts.loading import Loaded, load_extracts

__all__ = ["Loaded", "load_extracts"]
