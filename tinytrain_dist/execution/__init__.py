"""Run many independent calls: in this process, as Ray tasks, or on Ray actors. The only floor that imports Ray."""
