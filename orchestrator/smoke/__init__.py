"""`python -m orchestrator smoke`: whether the three services, as they are installed, do what they are for.

    command   options, exit code
    run       the steps, what each must find, and what is said of it
    services  the three services over HTTP: waited for while they start, asked with one answer in mind
    views     what of their answers is looked at

It knows nothing but their addresses. What it orders is its own: a customer and products with names that
no other run has, which are deactivated at the end. So it may run again and again, next to others and
next to real business.
"""
