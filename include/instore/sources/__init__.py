"""Where orders come from: the topic, the extracts, and what was set aside on the way."""
