"""The Python interface: pretraining, runs, profiles and the demo, one function per command."""
