"""Stand-ins for the outside world: Service Bus, loyalty API and Profile Store, with a week of sample orders.

They are built from the contracts alone (contracts.md, sections 1 to 4) and share no code with the pipeline, because a
stand-in built on the code under test would hide its faults. `python -m sandbox --help` says how to run them.
"""
