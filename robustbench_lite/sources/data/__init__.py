"""Data sets by SOURCE:ARGUMENT?KEY=VALUE&...: what is carried along, files, folders and tables.

A source is called with a split, what stood behind the colon, and the settings; it returns a
Dataset, or a Stream where the images are read when they are needed.
"""
