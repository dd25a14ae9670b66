"""Layer graph + update plan + device profile -> bytes, MACs, ms, mJ. No torch, no Ray: starts in a blink."""
