"""Episode samplers: how many classes, and how many support and query images of each."""
