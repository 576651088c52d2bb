"""Log lines in Caffe's format, readers of logs, learning curves."""
