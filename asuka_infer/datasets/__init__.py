"""Where pictures and holes come from: sample photographs, published evaluation sets, plain folders."""
