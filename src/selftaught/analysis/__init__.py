"""What a trained encoder shows beyond accuracy: the shortcut audit and the invariance of its layers."""
