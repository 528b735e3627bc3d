"""Hooks: `profile_store.ProfileStoreHook` and `loyalty.LoyaltyHook`."""
