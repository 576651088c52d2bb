"""Deep features for other data sets, and a linear SVM on them. Paper: appendix B."""
