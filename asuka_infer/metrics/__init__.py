"""Numbers about results: (results, truths, holes) -> numbers. No printing."""
