"""How the weights are made: one stage, one file."""
