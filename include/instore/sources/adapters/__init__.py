"""What a source wrote, made an order document: between a reader, which knows a format, and the order's own checks.

``adapter.py`` does what a declaration (model/declarations.py) says; ``bodies.py`` knows in what .NET and others wrap a
message's text. Without a declaration a document is an order document, and a CSV has our own columns.
"""

from include.instore.sources.adapters.adapter import Adapter, Blobs, adapter_named, adapter_of_file, adapter_of_topic
from include.instore.sources.adapters.bodies import Part, as_json, part_of, parts_of, read_body

__all__ = [
    "Adapter",
    "Blobs",
    "Part",
    "adapter_named",
    "adapter_of_file",
    "adapter_of_topic",
    "as_json",
    "part_of",
    "parts_of",
    "read_body",
]
