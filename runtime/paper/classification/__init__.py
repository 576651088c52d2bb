"""Tables 1 to 7 of the paper: its nets, and their classification errors."""
