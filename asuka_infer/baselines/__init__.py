"""Methods to compare with: one file, one method."""
