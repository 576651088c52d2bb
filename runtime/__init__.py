"""Executes, trains and evaluates Caffe nets."""
