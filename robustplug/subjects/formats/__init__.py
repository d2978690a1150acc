"""The formats of models: weights, programs, classifiers, boosted trees."""
