"""What everything else speaks of: orders, events, windows, settings and errors; imports nothing of the pipeline."""
