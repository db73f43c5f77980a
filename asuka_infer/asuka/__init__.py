"""The method of the paper: MAE prior, alignment, conditional decoder, pipelines."""
