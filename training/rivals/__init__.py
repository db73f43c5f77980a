"""Rivals of the embedded family: small networks in the manner of older papers, trained on the same photographs."""
