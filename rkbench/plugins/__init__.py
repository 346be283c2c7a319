"""What users plug in: their config files' projects, and what they register by name."""
