"""The TX2 twin: a SIMULATED Jetson TX2 behind a real sshd. Nothing measured on it is a board's."""
