# Becomes the function server on the port that is the first argument.
exec node "${0%/*}/server.js" "${1:-9000}"
