"""Solvers: how weights are learnt. Caffe: solver.cpp and solvers/."""
