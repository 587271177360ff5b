"""Who calls, and whether they may; asked before anything of a request is parsed or looked up.

access          which credentials an operation takes, and in whose name it then acts
bearer          JSON Web Tokens of an OpenID provider
keys            the public keys that those are signed with, from an address or a file
service_tokens  what our own services call one another with
principal       in whose name work is done; it travels with the calls to peers
limits          how fast one principal, and how many requests at once
settings        the parts of the settings that are about this
files           secrets in files, read again when they change
errors          what those are told who may not
"""
