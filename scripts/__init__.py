"""How it is launched: the command line, configs, claims, launch scripts and benchmarks."""
