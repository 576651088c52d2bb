"""The main job: prepare the data, train, evaluate, export, draw."""
