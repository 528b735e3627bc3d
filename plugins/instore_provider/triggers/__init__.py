"""The triggers of this provider."""
