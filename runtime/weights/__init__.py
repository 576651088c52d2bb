"""Files of weights and solver states, and copies between them and nets."""
