"""Tables 1 to 7 of the paper: nets, classification errors, and the conclusions drawn from them."""
