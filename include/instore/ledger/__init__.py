"""The ledger: what the pipeline remembers, in one SQL database (design.md, "The ledger").

``tables`` says what is kept, ``database`` opens and migrates it, and one module per step of an order's way moves it:
``intake`` (arrives; ``known_again`` where its key is known, and ``keys`` by which key), ``claims`` (planned),
``customers`` (pending to matched or unmatched), ``destinations`` (a delivery for each), ``deliveries`` (ready to sent
or rejected; ``editions`` where it is sent again) and ``runs`` (what became of it, counted). ``alerts`` remembers what
a person was told.
"""

from include.instore.ledger.database import Ledger

__all__ = ["Ledger"]
