"""One target task on one checkpoint: Fisher information, selection, methods, fine-tuning."""
