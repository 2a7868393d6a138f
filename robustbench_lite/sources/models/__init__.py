"""Models by SOURCE:NAME?KEY=VALUE&...: libraries' nets, files, Python factories, remote ones.

A source is called with what stood behind the colon, and the settings; it returns the classifier and
its profile, which `made` puts together.
"""
