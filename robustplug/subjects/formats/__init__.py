"""What a model may come as: weights, programs, classifiers, boosted trees."""
