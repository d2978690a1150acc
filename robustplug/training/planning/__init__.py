"""What a run on many devices would take: a short measurement here, and a model of the rest."""
