"""What every op means, as naive float64 loops: the judge of every backend, and none of them."""
