"""The paper's experiments: its tables as data, the runs behind them, and reports."""
