"""Numbers about results: (results, truths, holes) -> numbers. Only `cli` prints."""
