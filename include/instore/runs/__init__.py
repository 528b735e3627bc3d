"""What a run plans, reports, reconciles and raises alerts about."""
