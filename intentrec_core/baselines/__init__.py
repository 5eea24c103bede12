"""Reference rankers that a model has to beat: popularity, and a Markov chain over items."""
