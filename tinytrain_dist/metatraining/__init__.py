"""Episodic meta-training of a backbone in synchronous rounds: episodes in, a checkpoint out."""
