#!/bin/sh
# Entry of the image for development: `<service> serve` is started again whenever a source changes; any
# other command runs once, as in the image for production.
set -eu
[ "${2:-}" = serve ] || exec python -m "$@"
exec python -m watchfiles --filter python "python -m $*" chassis "$1"
