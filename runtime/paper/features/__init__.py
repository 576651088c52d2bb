"""Features of images of other data sets, and linear SVMs on them. Paper: appendix B."""
