"""The command line: the only room that prints or exits. One file a command; heavy imports happen inside commands."""
