"""The words shared by every floor above: layer graph, architecture tables, update plan, budget."""
