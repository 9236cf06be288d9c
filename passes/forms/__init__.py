"""What one fused operator stands for, in plain ones."""
