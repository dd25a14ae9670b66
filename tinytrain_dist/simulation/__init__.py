"""Grid -> units -> rows, exactly once: the schema of a result row, the store, the dispatch."""
