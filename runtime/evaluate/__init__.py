"""The paper's evaluation protocols and their measures."""
