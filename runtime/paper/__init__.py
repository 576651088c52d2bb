"""The reproduction of the paper: published tables, the training runs behind them, and reports."""
