"""The camera demo: the newest frame of a source through a detector onto any number of sinks.

capture thread -> one-slot mailbox -> preprocess -> inference -> post-processing, tracks, counters -> a thread per sink
"""
