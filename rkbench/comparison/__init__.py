"""How optimizers compare, as data that the report and the pictures draw: nothing here draws."""
