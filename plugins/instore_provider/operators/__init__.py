"""Operators: `profile_store.ProfileStoreTrackOperator`."""
