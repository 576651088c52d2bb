"""pycaffe's interface: `import runtime.pycaffe as caffe`."""
