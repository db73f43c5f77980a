"""The demo tab: paint a hole, run a method, see what changed."""
