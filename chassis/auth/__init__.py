"""Who calls, and whether they may; asked before anything of a request is parsed or looked up.

service_tokens  what our own services call one another with
files           secrets in files, read again when they change
errors          what strangers are told
"""
