"""The commands of `rkbench`: they parse, call the library and print."""
