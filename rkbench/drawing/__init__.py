"""Pictures and tables: what all published artefacts are drawn with."""
